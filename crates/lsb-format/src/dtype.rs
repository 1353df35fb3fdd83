//! Element types of safetensors files.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! dtypes {
    ($($variant:ident $name:literal $bits:literal $float:literal),+ $(,)?) => {
        /// Element type of a tensor, by the names safetensors uses.
        ///
        /// Types without numeric meaning here (`F4`, `C64`, ...) are carried as opaque bits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum DType { $(#[serde(rename = $name)] $variant),+ }

        impl DType {
            /// Every known type.
            pub const ALL: &[DType] = &[$(DType::$variant),+];

            /// The name in a safetensors header.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name),+ }
            }

            /// Width of one element in bits.
            pub fn bits(self) -> u64 {
                match self { $(DType::$variant => $bits),+ }
            }

            /// True where elements are real numbers that a lossy codec may approximate.
            pub fn is_float(self) -> bool {
                match self { $(DType::$variant => $float),+ }
            }

            /// The type of that name, exactly as spelled in a safetensors header.
            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)+ _ => None }
            }
        }
    };
}

dtypes! {
    BOOL "BOOL" 8 false,
    F4 "F4" 4 false,
    F6_E2M3 "F6_E2M3" 6 false,
    F6_E3M2 "F6_E3M2" 6 false,
    U8 "U8" 8 false,
    I8 "I8" 8 false,
    F8_E5M2 "F8_E5M2" 8 true,
    F8_E4M3 "F8_E4M3" 8 true,
    F8_E8M0 "F8_E8M0" 8 false,
    F8_E4M3FNUZ "F8_E4M3FNUZ" 8 false,
    F8_E5M2FNUZ "F8_E5M2FNUZ" 8 false,
    I16 "I16" 16 false,
    U16 "U16" 16 false,
    F16 "F16" 16 true,
    BF16 "BF16" 16 true,
    I32 "I32" 32 false,
    U32 "U32" 32 false,
    F32 "F32" 32 true,
    C64 "C64" 64 false,
    F64 "F64" 64 true,
    I64 "I64" 64 false,
    U64 "U64" 64 false,
}

impl DType {
    /// Bytes of `elements` elements, or `None` where they overflow 64 bits or do not fill whole bytes.
    pub fn byte_len(self, elements: u64) -> Option<u64> {
        let bits = elements.checked_mul(self.bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_serialise_as_themselves() {
        for &d in DType::ALL {
            assert_eq!(DType::from_name(d.name()), Some(d));
            assert_eq!(serde_json::to_string(&d).unwrap(), format!("\"{}\"", d.name()));
        }
        assert_eq!(DType::from_name("f16"), None);
    }

    #[test]
    fn odd_four_bit_counts_and_overflow_are_refused() {
        assert_eq!(DType::F4.byte_len(3), None);
        assert_eq!(DType::F4.byte_len(4), Some(2));
        assert_eq!(DType::F64.byte_len(u64::MAX / 8), None);
    }
}
