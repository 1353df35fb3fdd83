//! A benchmark as CSV and as Markdown.

use super::BenchmarkReport;

/// Titles and rows of all columns: method, size, metrics, cost.
fn cells(report: &BenchmarkReport) -> (Vec<String>, Vec<Vec<String>>) {
    let metrics: Vec<&String> = report.rows.first().map_or(Vec::new(), |row| row.metrics.keys().collect());
    let mut titles: Vec<String> = ["method", "bpw", "ratio"].map(str::to_owned).to_vec();
    titles.extend(metrics.iter().map(|m| (*m).clone()));
    titles.extend(["seconds", "peak_rss_bytes"].map(str::to_owned));
    let row = |row: &super::BenchmarkRow| {
        let mut cells = vec![row.method.clone(), format!("{:.4}", row.bpw), format!("{:.3}", row.ratio)];
        cells.extend(metrics.iter().map(|m| match row.metrics.get(*m).copied().flatten() {
            Some(value) => crate::verdict::plain(value),
            None => String::new(),
        }));
        cells.extend([format!("{:.2}", row.seconds), row.peak_rss_bytes.to_string()]);
        cells
    };
    (titles, report.rows.iter().map(row).collect())
}

/// One line for each method, RFC 4180.
pub fn csv(report: &BenchmarkReport) -> String {
    let (titles, rows) = cells(report);
    let quoted = |cell: &String| match cell.contains([',', '"', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.clone(),
    };
    let line = |cells: &Vec<String>| cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
    std::iter::once(&titles).chain(&rows).map(line).collect()
}

/// A table in Markdown.
pub fn markdown(report: &BenchmarkReport) -> String {
    let (titles, rows) = cells(report);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(&titles);
    out += &format!("|---|{}\n", "--:|".repeat(titles.len() - 1));
    for mut row in rows {
        row[0] = format!("`{}`", row[0]);
        out += &line(&row);
    }
    out
}
