//! How the columns of a row share scales.

use crate::{Error, Reader, Result, Value};
use lsb_format::Tile;
use std::fmt;
use std::ops::Range;

/// Which weights share a scale: runs of columns, cut anew in every row (and at every tile).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The whole row, or the part of it inside one tile.
    Row,
    /// This many columns; the last group of a row may be shorter.
    Columns(u32),
}

impl Group {
    /// The smallest and the largest group, in columns.
    pub const RANGE: Range<u32> = 8..65537;

    /// Takes the parameter `group` out of `reader`: `row` or a number of columns.
    ///
    /// # Errors
    /// If the value is neither.
    pub fn read(reader: &mut Reader<'_>, codec: &str, default: Group) -> Result<Group> {
        let text = reader.text("group", &default.to_string());
        if text == "row" {
            return Ok(Group::Row);
        }
        let columns = text.parse().ok().filter(|n| Self::RANGE.contains(n));
        columns.map(Group::Columns).ok_or_else(|| Error::Parameter {
            codec: codec.to_owned(),
            name: "group".to_owned(),
            message: format!(
                "\"{text}\" is neither \"row\" nor a number of columns from {} to {}",
                Self::RANGE.start,
                Self::RANGE.end - 1
            ),
        })
    }

    /// The parameter's value.
    pub fn value(self) -> Value {
        match self {
            Group::Row => Value::from("row"),
            Group::Columns(n) => Value::from(n),
        }
    }

    /// Columns of a full group in rows of `cols` columns; at least 1.
    pub(crate) fn width(self, cols: usize) -> usize {
        match self {
            Group::Row => cols,
            Group::Columns(n) => cols.min(n as usize),
        }
        .max(1)
    }

    /// Groups in one row of `cols` columns.
    pub(crate) fn per_row(self, cols: usize) -> usize {
        cols.div_ceil(self.width(cols))
    }

    /// Groups in `tile`.
    pub(crate) fn in_tile(self, tile: &Tile) -> usize {
        tile.rows as usize * self.per_row(tile.cols as usize)
    }

    /// Groups in a matrix of `rows` x `cols` whose tiles are `tile_cols` wide.
    pub(crate) fn in_matrix(self, rows: u64, cols: u64, tile_cols: u64) -> f64 {
        let full = cols / tile_cols.max(1);
        let per_row = full as f64 * self.per_row(tile_cols as usize) as f64
            + self.per_row((cols - full * tile_cols) as usize) as f64;
        rows as f64 * per_row
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameters;

    #[test]
    fn text_and_value_agree() {
        for group in [Group::Row, Group::Columns(128)] {
            let p = Parameters::new().with("group", group.value());
            assert_eq!(Group::read(&mut p.reader("x"), "x", Group::Columns(64)), Ok(group));
        }
        for bad in ["7", "65537", "rows", "-1", "1.5"] {
            let p = Parameters::parse("x", &format!("group={bad}")).unwrap();
            assert!(Group::read(&mut p.reader("x"), "x", Group::Row).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_restart_at_rows_and_tiles() {
        assert_eq!(Group::Columns(64).per_row(130), 3);
        assert_eq!(Group::Row.per_row(130), 1);
        assert_eq!(Group::Columns(64).per_row(0), 0);
        assert_eq!(Group::Columns(64).in_matrix(2, 300, 200), 2.0 * (4.0 + 2.0));
        assert_eq!(Group::Row.in_matrix(3, 400, 200), 6.0);
    }
}
