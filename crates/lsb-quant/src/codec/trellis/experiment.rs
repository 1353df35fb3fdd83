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
