//! Tables as Parquet, which pandas, R and DuckDB read with their types. Required columns only, Snappy, no nesting.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::table::{Table, Values};

/// Rows that are written at once.
const BATCH: usize = 65_536;

/// A table as a Parquet file.
///
/// # Errors
/// Where a column's name is none that Parquet takes, or the file cannot be put together.
pub fn write(table: &Table) -> Result<Vec<u8>, ParquetError> {
    let fields = table
        .columns
        .iter()
        .map(|column| field(&column.name, &column.values));
    let schema = Type::group_type_builder("gristmill")
        .with_fields(fields.collect::<Result<_, _>>()?)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("gristmill ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for column in &table.columns {
        let mut writer = group
            .next_column()?
            .ok_or_else(|| ParquetError::General(format!("there is no column for {}", column.name)))?;
        write_column(&mut writer, &column.values)?;
        writer.close()?;
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}

fn field(name: &str, values: &Values) -> Result<Arc<Type>, ParquetError> {
    let (physical, logical) = match values {
        Values::Text { .. } => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        Values::Whole(_) => (PhysicalType::INT64, Some(LogicalType::integer(64, false))),
        Values::Number(_) => (PhysicalType::DOUBLE, None),
    };
    let field = Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(logical)
        .build()?;
    Ok(Arc::new(field))
}

fn write_column(writer: &mut SerializedColumnWriter<'_>, values: &Values) -> Result<(), ParquetError> {
    match values {
        Values::Text { dictionary, rows } => {
            let texts: Vec<ByteArray> = dictionary.iter().map(|text| text.as_str().into()).collect();
            for batch in rows.chunks(BATCH) {
                let place = |row: &u32| usize::try_from(*row).ok().and_then(|place| texts.get(place));
                let cells: Vec<ByteArray> = batch
                    .iter()
                    .map(|row| place(row).cloned().unwrap_or_default())
                    .collect();
                writer.typed::<ByteArrayType>().write_batch(&cells, None, None)?;
            }
        }
        Values::Whole(numbers) => {
            for batch in numbers.chunks(BATCH) {
                // Unsigned numbers are stored as the signed ones of the same bits.
                let cells: Vec<i64> = batch.iter().map(|number| number.cast_signed()).collect();
                writer.typed::<Int64Type>().write_batch(&cells, None, None)?;
            }
        }
        Values::Number(numbers) => {
            for batch in numbers.chunks(BATCH) {
                writer.typed::<DoubleType>().write_batch(batch, None, None)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;
    use crate::results::comma_separated;
    use crate::results::table::tables;
    use crate::results::tests::run_of;

    /// A file's rows, spelled as CSV spells them.
    fn rows(file: Vec<u8>) -> Vec<Vec<String>> {
        let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
        let spelled = |field: &Field| match field {
            Field::Str(text) => text.clone(),
            Field::ULong(number) => number.to_string(),
            Field::Double(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let row = |row: Result<parquet::record::Row, ParquetError>| {
            row.unwrap()
                .get_column_iter()
                .map(|(_, field)| spelled(field))
                .collect()
        };
        reader.get_row_iter(None).unwrap().map(row).collect()
    }

    #[test]
    fn csv_and_parquet_say_the_same() {
        let runs = [
            run_of(&[("churn", "0.1")], 3),
            run_of(&[("churn", "0.4")], u64::MAX),
        ];
        let tables = tables(&runs);
        for table in [tables.metrics, tables.series, tables.distributions] {
            let text = comma_separated::write(&table).unwrap();
            let mut reader = csv::Reader::from_reader(text.as_slice());
            let record = |record: Result<csv::StringRecord, csv::Error>| {
                record.unwrap().iter().map(str::to_owned).collect()
            };
            let lines: Vec<Vec<String>> = reader.records().map(record).collect();
            assert_eq!(rows(write(&table).unwrap()), lines);
            assert_eq!(lines.len(), table.rows());
        }
    }

    #[test]
    fn a_table_without_rows_is_a_file_with_columns() {
        let tables = tables(&[]);
        assert!(rows(write(&tables.metrics).unwrap()).is_empty());
    }
}
