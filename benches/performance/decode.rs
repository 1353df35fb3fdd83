//! From the bytes of trellis tiles to weights, by every kernel there is here, and on more than one thread.

use crate::measure::whole;
use crate::tensor::Subject;
use crate::{Bench, Figure, Limit, Outcome, Yardstick};
use lsb_quant::Isa;

const ROWS: usize = 2048;
const COLS: usize = 4096;

const UNIT: &str = "G symbols/s";

/// Symbols a block of the other coder has: where it is fastest.
const BLOCK: usize = 1 << 20;

#[cfg(not(feature = "htscodecs"))]
const MISSING: &str = "libhtscodecs, the yardstick of entropy decoding: install it (Debian: libhtscodecs-dev) and run \
                       `cargo xtask bench --features htscodecs`";

pub(crate) fn measure(bench: &mut Bench) -> Outcome {
    let best = Isa::chosen();
    for bpw in [2, 3] {
        kernels(bench, bpw, best)?;
        best.choose();
        scaling(bench, bpw)?;
    }
    Ok(())
}

fn kernels(bench: &mut Bench, bpw: u32, best: Isa) -> Outcome {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available() && *isa <= best);
    let names = |isa: Isa| {
        ["", " to f32"].map(|to| format!("trellis decode{to}, {bpw} bpw, {}, 1 thread", isa.name()))
    };
    let isas: Vec<Isa> = isas.filter(|isa| names(*isa).iter().any(|name| bench.wants(name))).collect();
    if isas.is_empty() {
        return Ok(());
    }
    let subject = Subject::new(&format!("trellis:bpw={bpw}"), ROWS, COLS)?;
    let coded = subject.encoded()?;
    let n = subject.n_weights();
    let (mut yardstick, bits) = other(coded.bpw(), n as usize)?;
    let protocols = [
        "to levels, two tiles at a time, into a buffer that is used again for the next 32 columns",
        "to f32, level times step, tile after tile into a buffer that is used again for the next tile",
    ]
    .map(|how| {
        format!(
            "All tiles of a {ROWS} x {COLS} tensor at {:.2} bits per weight {how}, on one core; libhtscodecs decodes as many \
             order-0 symbols of {bits:.2} bits ({BLOCK} symbols a block, `RANS_ORDER_X32`) to bytes.",
            coded.bpw(),
        )
    });
    for isa in isas {
        isa.choose();
        let ours = [whole(|| coded.decode_levels(&bench.one)), whole(|| coded.decode(&bench.one))];
        let mut contestants: Vec<_> = ours.into_iter().chain(yardstick.as_mut().map(whole)).collect();
        let seconds = bench.effort.compare(&mut contestants);
        drop(contestants);
        let limit = match isa {
            _ if isa == best && isa != Isa::Scalar => Limit::AtLeast(1.0),
            Isa::Scalar => Limit::AtLeast(0.15),
            _ => Limit::None,
        };
        for (((name, seconds_ours), protocol), limit) in
            names(isa).iter().zip(&seconds).zip(&protocols).zip([limit, Limit::None])
        {
            let yardstick = seconds.get(2).map_or_else(missing, |s| {
                Yardstick::Measured(n / s / 1e9, "libhtscodecs rANS 32x16".to_owned())
            });
            bench.row(name, Figure::new(n / seconds_ours / 1e9, UNIT), yardstick, limit, protocol);
        }
    }
    Ok(())
}

/// How much more `--threads` decode than one does.
fn scaling(bench: &mut Bench, bpw: u32) -> Outcome {
    let threads = bench.threads();
    let name = format!("trellis decode, {bpw} bpw, {threads} threads over 1");
    if threads == 1 || !bench.wants(&name) {
        return Ok(());
    }
    let subject = Subject::new(&format!("trellis:bpw={bpw}"), ROWS, COLS)?;
    let coded = subject.encoded()?;
    let seconds = bench
        .effort
        .compare(&mut [whole(|| coded.decode_levels(&bench.all)), whole(|| coded.decode_levels(&bench.one))]);
    let rate = |s: f64| subject.n_weights() / s / 1e9;
    bench.row(
        &name,
        Figure::new(rate(seconds[0]), UNIT),
        Yardstick::Measured(rate(seconds[1]), "1 thread".to_owned()),
        Limit::AtLeast(0.95 * threads as f64),
        "All tiles of a tensor to levels, rows of tiles shared out among the threads of a pool.",
    );
    Ok(())
}

/// Decodes everything once with the other coder, and bits per symbol.
type Other = (Option<Box<dyn FnMut() -> bool>>, f64);

#[cfg(feature = "htscodecs")]
fn other(bpw: f64, n: usize) -> Outcome<Other> {
    use crate::htscodecs::{compress, decompress};
    // Rounded Gaussian values have so many bits of entropy.
    let sigma = 2f64.powf(bpw - 2.047);
    let symbols = lsb_benches::bell_symbols(1, n, sigma);
    let blocks: Option<Vec<Vec<u8>>> = symbols.chunks(BLOCK).map(compress).collect();
    let blocks = blocks.ok_or("libhtscodecs does not take the symbols")?;
    let bits = 8.0 * blocks.iter().map(Vec::len).sum::<usize>() as f64 / n as f64;
    let mut out = vec![0; BLOCK];
    for (block, symbols) in blocks.iter().zip(symbols.chunks(BLOCK)) {
        let out = &mut out[..symbols.len()];
        if !(decompress(block, out) && *out == *symbols) {
            return Err("libhtscodecs does not restore the symbols".into());
        }
    }
    let last = n - (blocks.len() - 1) * BLOCK;
    let decode = move || {
        let size = |i: usize| if i + 1 == blocks.len() { last } else { BLOCK };
        blocks.iter().enumerate().all(|(i, block)| decompress(block, &mut out[..size(i)]))
    };
    Ok((Some(Box::new(decode)), bits))
}

#[cfg(not(feature = "htscodecs"))]
fn other(bpw: f64, _: usize) -> Outcome<Other> {
    Ok((None, bpw))
}

#[cfg(feature = "htscodecs")]
fn missing() -> Yardstick {
    Yardstick::None
}

#[cfg(not(feature = "htscodecs"))]
fn missing() -> Yardstick {
    Yardstick::Missing(MISSING)
}
