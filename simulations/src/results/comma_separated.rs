//! Tables as CSV (RFC 4180), and a run's figures read back from it. What is read is not trusted.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord, Writer};
use thiserror::Error;

use super::table::{Column, Table};
use super::{Distribution, Listing, Series};

/// Why a text is not the table that was asked for.
#[derive(Debug, Error)]
pub enum TableError {
    /// No CSV, such as a row with too few cells.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A column that must be there.
    #[error("the column {column} is missing in line 1")]
    Missing {
        /// Its heading.
        column: String,
    },
    /// A cell that does not say what its column says.
    #[error("line {line}: '{cell}' in the column {column} is no {wanted}")]
    Cell {
        /// The line in the file, from 1.
        line: u64,
        /// The column's heading.
        column: String,
        /// What stands there, cut short.
        cell: String,
        /// What should.
        wanted: &'static str,
    },
    /// Rows of a table for people that do not fit together.
    #[error("line {line}: the table {table} jumps to a row or a column out of turn")]
    Jump {
        /// The line in the file, from 1.
        line: u64,
        /// The table's name.
        table: String,
    },
}

/// A table with its headings.
///
/// # Errors
/// Where the text cannot be put together: never with memory to spare.
pub fn write(table: &Table) -> Result<Vec<u8>, csv::Error> {
    let mut writer = Writer::from_writer(Vec::new());
    writer.write_record(table.columns.iter().map(|column| &column.name))?;
    for row in 0..table.rows() {
        for Column { values, .. } in &table.columns {
            writer.write_field(values.spelled(row).unwrap_or_default())?;
        }
        writer.write_record(None::<&[u8]>)?;
    }
    bytes(writer)
}

/// Tables for people, one cell a line.
///
/// # Errors
/// As [`write()`].
pub fn write_listings(listings: &[Listing]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = Writer::from_writer(Vec::new());
    writer.write_record(["table", "row", "column", "value"])?;
    for Listing { name, columns, rows } in listings {
        for (row, cells) in rows.iter().enumerate() {
            let row = (row + 1).to_string();
            for (column, cell) in columns.iter().zip(cells) {
                writer.write_record([name, &row, column, cell])?;
            }
        }
    }
    bytes(writer)
}

fn bytes(writer: Writer<Vec<u8>>) -> Result<Vec<u8>, csv::Error> {
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// Rows with the places of the columns that are asked for.
struct Rows<'a> {
    records: csv::StringRecordsIntoIter<&'a [u8]>,
    names: &'static [&'static str],
    places: Vec<usize>,
}

impl<'a> Rows<'a> {
    fn new(text: &'a [u8], names: &'static [&'static str]) -> Result<Self, TableError> {
        let mut reader = ReaderBuilder::new().from_reader(text);
        let headings = reader.headers()?;
        let place = |name: &&str| {
            let found = headings.iter().position(|heading| heading == *name);
            found.ok_or_else(|| TableError::Missing {
                column: (*name).to_owned(),
            })
        };
        let places = names.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self {
            records: reader.into_records(),
            names,
            places,
        })
    }

    fn next(&mut self) -> Result<Option<StringRecord>, TableError> {
        Ok(self.records.next().transpose()?)
    }

    /// A cell, by the place of its column's name among those that were asked for.
    fn text<'r>(&self, record: &'r StringRecord, which: usize) -> &'r str {
        let place = self.places.get(which).copied();
        place.and_then(|place| record.get(place)).unwrap_or_default()
    }

    fn number(&self, record: &StringRecord, which: usize) -> Result<f64, TableError> {
        let cell = self.text(record, which);
        super::table::number(cell).ok_or_else(|| self.wrong(record, which, "finite number"))
    }

    fn whole(&self, record: &StringRecord, which: usize) -> Result<u64, TableError> {
        let cell = self.text(record, which);
        cell.parse()
            .map_err(|_| self.wrong(record, which, "whole number"))
    }

    fn wrong(&self, record: &StringRecord, which: usize, wanted: &'static str) -> TableError {
        TableError::Cell {
            line: line(record),
            column: self.names.get(which).copied().unwrap_or_default().to_owned(),
            cell: self.text(record, which).chars().take(40).collect(),
            wanted,
        }
    }
}

fn line(record: &StringRecord) -> u64 {
    record.position().map_or(0, csv::Position::line)
}

/// The metrics of one run.
///
/// # Errors
/// [`TableError`] naming line and column.
pub fn read_metrics(text: &[u8]) -> Result<BTreeMap<String, f64>, TableError> {
    let mut rows = Rows::new(text, &["metric", "value"])?;
    let mut metrics = BTreeMap::new();
    while let Some(record) = rows.next()? {
        metrics.insert(rows.text(&record, 0).to_owned(), rows.number(&record, 1)?);
    }
    Ok(metrics)
}

/// The series of one run.
///
/// # Errors
/// [`TableError`] naming line and column.
pub fn read_series(text: &[u8]) -> Result<Vec<Series>, TableError> {
    let mut rows = Rows::new(text, &["series", "unit", "at_s", "value"])?;
    let mut all: Vec<Series> = Vec::new();
    while let Some(record) = rows.next()? {
        let (name, unit) = (rows.text(&record, 0), rows.text(&record, 1));
        let point = (rows.number(&record, 2)?, rows.number(&record, 3)?);
        match all.last_mut() {
            Some(series) if series.name == name => series.points.push(point),
            _ => all.push(Series {
                name: name.to_owned(),
                unit: unit.to_owned(),
                points: vec![point],
            }),
        }
    }
    Ok(all)
}

/// The distributions of one run.
///
/// # Errors
/// [`TableError`] naming line and column.
pub fn read_distributions(text: &[u8]) -> Result<Vec<Distribution>, TableError> {
    let mut rows = Rows::new(text, &["distribution", "unit", "upper", "count"])?;
    let mut all: Vec<Distribution> = Vec::new();
    while let Some(record) = rows.next()? {
        let (name, unit) = (rows.text(&record, 0), rows.text(&record, 1));
        let bucket = (rows.number(&record, 2)?, rows.whole(&record, 3)?);
        match all.last_mut() {
            Some(distribution) if distribution.name == name => distribution.buckets.push(bucket),
            _ => all.push(Distribution {
                name: name.to_owned(),
                unit: unit.to_owned(),
                buckets: vec![bucket],
            }),
        }
    }
    Ok(all)
}

/// The tables for people of one run.
///
/// # Errors
/// [`TableError`] naming line and column.
pub fn read_listings(text: &[u8]) -> Result<Vec<Listing>, TableError> {
    let mut rows = Rows::new(text, &["table", "row", "column", "value"])?;
    let mut all: Vec<Listing> = Vec::new();
    while let Some(record) = rows.next()? {
        let name = rows.text(&record, 0);
        let row = rows.whole(&record, 1)?;
        if all.last().is_none_or(|listing| listing.name != name) {
            all.push(Listing {
                name: name.to_owned(),
                columns: Vec::new(),
                rows: Vec::new(),
            });
        }
        let is_in_turn = all
            .last_mut()
            .is_some_and(|listing| put(listing, row, rows.text(&record, 2), rows.text(&record, 3)));
        if !is_in_turn {
            let (line, table) = (line(&record), name.to_owned());
            return Err(TableError::Jump { line, table });
        }
    }
    Ok(all)
}

/// Puts the next cell into a table; false where it is not the next.
fn put(listing: &mut Listing, row: u64, column: &str, cell: &str) -> bool {
    let columns = listing.columns.len();
    let is_complete = listing.rows.last().is_none_or(|cells| cells.len() == columns);
    let rows = listing.rows.len() as u64;
    if row == rows + 1 && (is_complete || rows == 0) {
        listing.rows.push(Vec::new());
    } else if row != rows {
        return false;
    }
    let Some(cells) = listing.rows.last_mut() else {
        return false;
    };
    if row == 1 {
        listing.columns.push(column.to_owned());
    } else if listing
        .columns
        .get(cells.len())
        .is_none_or(|heading| heading != column)
    {
        return false;
    }
    cells.push(cell.to_owned());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tables;
    use crate::results::tests::run_of;

    #[test]
    fn figures_come_back_from_csv() {
        let run = run_of(&[("churn", "0.1")], 3);
        let tables = tables(std::slice::from_ref(&run));
        assert_eq!(
            read_metrics(&write(&tables.metrics).unwrap()).unwrap(),
            run.metrics
        );
        assert_eq!(read_series(&write(&tables.series).unwrap()).unwrap(), run.series);
        assert_eq!(
            read_distributions(&write(&tables.distributions).unwrap()).unwrap(),
            run.distributions
        );
        assert_eq!(
            read_listings(&write_listings(&run.tables).unwrap()).unwrap(),
            run.tables
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| read_metrics(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("metric\na\n"), "the column value is missing in line 1");
        let wrong = error("metric,value\na,1\nb,much\n");
        assert_eq!(wrong, "line 3: 'much' in the column value is no finite number");
        assert!(error("metric,value\na,inf\n").contains("no finite number"));
        assert!(
            error("metric,value\na\n").contains("1 fields"),
            "{}",
            error("metric,value\na\n")
        );
        let jump = "table,row,column,value\nt,1,a,x\nt,3,a,y\n";
        let error = read_listings(jump.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 3: the table t"), "{error}");
    }
}
