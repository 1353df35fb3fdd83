use super::machine::*;
use super::number::*;
use super::search::*;
fn gaussian(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1.0 / (1u64 << 54) as f64
    };
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        out.push((radius * angle.cos()) as f32);
        out.push((radius * angle.sin()) as f32);
    }
    out
}
fn table(counts: &[f64], lambda: f64) -> RateTable {
    // counts by |j|
    let tot = [0, 1]
        .map(|s| counts.iter().enumerate().filter(|(j, _)| j % 2 == s).map(|(_, c)| c).sum::<f64>() + 1.0);
    RateTable::new(|j| {
        let a = j.unsigned_abs() as usize;
        let c = (counts[a] * if a == 0 { 1.0 } else { 0.5 }).max(0.05);
        (lambda * log2(tot[a % 2] / c)) as f32
    })
}
#[test]
fn gap() {
    let w = gaussian(1, 1024 * 512);
    let arg = |n: &str, d: f64| std::env::var(n).ok().and_then(|s| s.parse().ok()).unwrap_or(d);
    for states in STATES {
        if arg("STATES", states as f64) != states as f64 {
            continue;
        }
        for tau in std::env::var("TAUS")
            .unwrap_or("1.0".into())
            .split(" ")
            .map(|t| t.parse::<f64>().unwrap())
            .collect::<Vec<_>>()
        {
            for lambda in [arg("L0", 0.15), arg("L1", 0.25), arg("L2", 0.35)] {
                let m = Machine::new(states).unwrap();
                let mut s = Search::<32>::new(m);
                let xs: Vec<[f32; 32]> =
                    w.chunks(32).map(|c| std::array::from_fn(|i| c[i] / tau as f32)).collect();
                let mut levels = vec![[0; 32]; xs.len()];
                let sig = 1.0 / tau;
                let mut counts: Vec<f64> = (0..=REACH)
                    .map(|j| {
                        let mut p = 0.0;
                        for k in 0..8 {
                            let y = (j as f64 - 1.0 + (k as f64 + 0.5) / 4.0) / sig;
                            p += exp2(-y * y / 2.0 * std::f64::consts::LOG2_E);
                        }
                        p * if j == 0 { 1.0 } else { 2.0 }
                    })
                    .collect();
                let mut line = String::new();
                let t0 = std::time::Instant::now();
                for pass in 0..arg("PASSES", 3.0) as usize {
                    let t = [table(&counts, lambda)];
                    let mut d0 = 0.0;
                    for (x, l) in xs.chunks(8192).zip(levels.chunks_mut(8192)) {
                        s.run(x, &t, |_, _| 0, [0; 32], l);
                    }
                    let mut full = std::collections::BTreeMap::new();
                    let (mut sj, mut sx) = (0.0, 0.0);
                    counts.iter_mut().for_each(|c| *c = 0.0);
                    for (x, l) in xs.iter().flatten().zip(levels.iter().flatten()) {
                        *full.entry(*l).or_insert(0.0) += 1.0;
                        counts[l.unsigned_abs() as usize] += 1.0;
                        let e = (*x - *l as f32) as f64;
                        d0 += e * e;
                        sj += (*l as f64).powi(2);
                        sx += *x as f64 * *l as f64;
                    }
                    let n = (xs.len() * 32) as f64;
                    let tot = [0, 1].map(|s| {
                        full.iter().filter(|(j, _)| j.rem_euclid(2) == s).map(|(_, c)| c).sum::<f64>()
                    });
                    let h: f64 =
                        full.iter().map(|(j, c)| c * (tot[j.rem_euclid(2) as usize] / c).log2()).sum::<f64>()
                            / n;
                    let var = xs.iter().flatten().map(|x| (*x as f64).powi(2)).sum::<f64>();
                    let d1 = (var - sx * sx / sj.max(1e-9)) / n;
                    let d0 = d0 / n;
                    let var = var / n;
                    line += &format!(
                        " | {pass}: R {h:.3} {:.2} dB gap {:.4} refit {:.4}",
                        10.0 * (var / d0).log10(),
                        h - 0.5 * (var / d0).log2(),
                        h - 0.5 * (var / d1).log2()
                    );
                }
                println!(
                    "states {states} tau {tau} lambda {lambda} {line} {:.1} Mw/s",
                    arg("PASSES", 3.0) * w.len() as f64 / t0.elapsed().as_secs_f64() / 1e6
                );
            }
        }
    }
}
#[test]
fn codec() {
    use crate::*;
    use lsb_format::{DType, Tile};
    let arg = |n: &str, d: f64| std::env::var(n).ok().and_then(|s| s.parse().ok()).unwrap_or(d);
    let (rows, cols) = (arg("ROWS", 1024.0) as u64, arg("COLS", 512.0) as u64);
    let w = gaussian(7, (rows * cols) as usize);
    let w = &w[..(rows * cols) as usize];
    let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
    let m = MatrixInfo { rows, cols, dtype: DType::F32 };
    for st in std::env::var("ST").unwrap_or("8".into()).split(' ') {
        for spec in std::env::var("SPECS").unwrap_or("bpw=1.5 bpw=2 bpw=2.5 bpw=3 bpw=4".into()).split(' ') {
            let q = Registry::standard().parse(&format!("trellis:states={st},{spec}")).unwrap();
            let tiling = q.tiling(&m).unwrap();
            let mut s = Surveyor::new(&q.needs(), &m, &tiling);
            let span = Span::new(m, tiling, 0..tiling.len(), &bytes);
            while s.wants_pass() {
                s.observe(&span).unwrap();
                s.end_pass();
            }
            let st = s.finish();
            let mut e = q.encoder(&m, &st).unwrap();
            let mut out = vec![EncodedTile::default(); tiling.len() as usize];
            let t = std::time::Instant::now();
            e.encode(&span, &mut out).unwrap();
            let t_enc = t.elapsed().as_secs_f64();
            let d = q.decoder(&m, &e.finish().unwrap()).unwrap();
            let (mut ee, mut ww) = (0.0, 0.0);
            let t = std::time::Instant::now();
            let mut n = 0;
            for (i, tile) in out.iter().enumerate() {
                let at: Tile = tiling.tile(i as u64);
                let mut back = vec![0.0; at.weights()];
                d.decode(&at, &tile.parts().collect::<Vec<_>>(), &mut back).unwrap();
                for r in 0..at.rows {
                    for c in 0..at.cols {
                        let a = w[((at.row + r) * cols + at.col + c) as usize] as f64;
                        let b = back[(r * at.cols + c) as usize] as f64;
                        ee += (a - b) * (a - b);
                        ww += a * a;
                    }
                }
                n += tile.bytes().len();
            }
            let t_dec = t.elapsed().as_secs_f64();
            let bpw = 8.0 * n as f64 / (rows * cols) as f64;
            let est = q.estimate(&m).unwrap();
            println!(
                "{q:?}: {bpw:.4} bpw {:.3} dB gap {:.4} | est {:.4} {:.2} | {} tiles, less overhead {:.4} | enc {:.1} dec {:.1} Mw/s",
                10.0 * (ww / ee).log10(),
                bpw - 0.5 * (ww / ee).log2(),
                est.bytes * 8.0 / (rows * cols) as f64,
                est.snr_db,
                out.len(),
                (8.0 * n as f64 - 8.0 * 180.0 * out.len() as f64) / (rows * cols) as f64,
                (rows * cols) as f64 / t_enc / 1e6,
                (rows * cols) as f64 / t_dec / 1e6
            );
        }
    }
}
