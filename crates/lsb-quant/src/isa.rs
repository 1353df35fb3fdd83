//! Which kernels run: what the processor can do, unless `LSB_ISA` says less.

use std::sync::atomic::{AtomicU8, Ordering};

/// A set of instructions there are kernels for. All of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// No vectors but what the compiler makes of loops.
    Scalar,
    /// NEON, of 64-bit ARM processors.
    Neon,
    /// AVX2.
    Avx2,
    /// AVX-512 (F and BW).
    Avx512,
}

impl Isa {
    /// Every one, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// What it is called, in `LSB_ISA` too.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("popcnt")
            }
            // Those of other processors.
            _ => false,
        }
    }

    /// The one that is used: the best there is, or the one that the environment variable `LSB_ISA` names. A name that is unknown
    /// or of what the processor does not have is passed over with a warning.
    pub fn chosen() -> Isa {
        let known = CHOSEN.load(Ordering::Relaxed);
        if let Some(isa) = Isa::ALL.get(usize::from(known)) {
            return *isa;
        }
        let isa = Isa::from_environment();
        isa.choose();
        isa
    }

    /// Uses this one from now on, in all threads, if the processor has it: for comparisons.
    pub fn choose(self) {
        if self.is_available() {
            CHOSEN.store(self as u8, Ordering::Relaxed);
        }
    }

    fn from_environment() -> Isa {
        let best = Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar);
        let Ok(wanted) = std::env::var("LSB_ISA") else { return best };
        let available = || Isa::ALL.into_iter().filter(|isa| isa.is_available());
        available().find(|isa| isa.name() == wanted).unwrap_or_else(|| {
            let names: Vec<&str> = available().map(Isa::name).collect();
            tracing::warn!("LSB_ISA={wanted} is none of {}: {} is used", names.join(", "), best.name());
            best
        })
    }
}

/// Place in [`Isa::ALL`] of the one that is used; beyond its end before one was asked for.
static CHOSEN: AtomicU8 = AtomicU8::new(u8::MAX);
