//! What the figures were measured on and when, in words.

use std::fs;
use std::process::Command;

/// Name and value of everything that figures depend on.
pub(crate) fn describe(threads: usize) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("processor", field("/proc/cpuinfo", "model name").unwrap_or_else(unknown)),
        ("family, model, stepping", family()),
        ("instructions", instructions()),
        ("cores", format!("{threads} used of {cores} available")),
        ("caches", caches()),
        ("memory", field("/proc/meminfo", "MemTotal").map_or_else(unknown, gigabytes)),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| unknown(), trimmed)),
        ("compiler", output("rustc", &["--version"])),
        ("date", output("date", &["-u", "+%F"])),
    ]
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn trimmed(text: String) -> String {
    text.trim().to_owned()
}

/// The value after the first `name` and a colon.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn family() -> String {
    let parts = ["cpu family", "model", "stepping"].map(|name| field("/proc/cpuinfo", name));
    let parts: Vec<String> = parts.into_iter().map(|part| part.unwrap_or_else(unknown)).collect();
    parts.join(", ")
}

/// The kernels there are for this processor, and what the next ones could use.
fn instructions() -> String {
    let kernels = lsb_quant::Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(|isa| isa.name());
    let flags = field("/proc/cpuinfo", "flags").unwrap_or_default();
    let also = ["fma", "avx512_vnni", "avx512_vbmi2", "amx_int8"];
    let also = also.into_iter().filter(|flag| flags.split(' ').any(|f| f == *flag));
    kernels.chain(also).collect::<Vec<_>>().join(", ")
}

fn gigabytes(kib: String) -> String {
    let kib: f64 = kib.trim_end_matches("kB").trim().parse().unwrap_or(0.0);
    format!("{:.1} GB", kib * 1024.0 / 1e9)
}

/// Caches of the first core.
fn caches() -> String {
    let read = |index: usize, name: &str| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).map(trimmed)
    };
    let of = |index: usize| {
        let (level, kind) = (read(index, "level").ok()?, read(index, "type").ok()?);
        let size = read(index, "size").ok()?;
        let kind = match kind.as_str() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!("L{level}{kind} {size}"))
    };
    let all: Vec<String> = (0..8).map_while(of).collect();
    if all.is_empty() { unknown() } else { all.join(", ") }
}

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| unknown(), |o| trimmed(String::from_utf8_lossy(&o.stdout).into_owned()))
}
