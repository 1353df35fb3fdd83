//! Which kernels run: what the processor can do, unless `LSB_ISA` says less.

use std::sync::OnceLock;

/// A set of instructions there are kernels for. All of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// No vectors but what the compiler makes of loops.
    Scalar,
    /// AVX-512 (F and BW).
    Avx512,
}

impl Isa {
    /// Every one, slowest first.
    pub const ALL: [Isa; 2] = [Isa::Scalar, Isa::Avx512];

    /// What it is called, in `LSB_ISA` too.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 => false,
        }
    }

    /// The one that is used: the best there is, or the one that the environment variable `LSB_ISA` names. A name that is unknown
    /// or of what the processor does not have is passed over with a warning.
    pub fn chosen() -> Isa {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let best = Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar);
            let Ok(wanted) = std::env::var("LSB_ISA") else { return best };
            let named = Isa::ALL.into_iter().find(|isa| isa.name() == wanted && isa.is_available());
            if named.is_none() {
                let names: Vec<&str> =
                    Isa::ALL.into_iter().filter(|i| i.is_available()).map(Isa::name).collect();
                tracing::warn!("LSB_ISA={wanted} is none of {}: {} is used", names.join(", "), best.name());
            }
            named.unwrap_or(best)
        })
    }
}
