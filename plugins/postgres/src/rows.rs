//! A batch as columns: the parameters of the statement that inserts it.

use std::{borrow::Cow, collections::BTreeSet, error::Error, ops::Range, time::SystemTime};

use bytes::{BufMut, BytesMut};
use plugin_api::{Batch, Field, Fields, Record};
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};
use uuid::Uuid;

use crate::{
    sanitize::replace_forbidden_escapes,
    table::{COLUMNS, Column, Day, Kind},
};

/// The records of a batch, column by column.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The records' places in the batch.
    records: Vec<usize>,
    /// Their ids.
    ids: Vec<Uuid>,
    timestamps: Vec<SystemTime>,
    /// One for each of [`COLUMNS`]; empty for those that have a vector of their own.
    columns: Vec<Values<'a>>,
    /// All logs, one behind the other.
    logs: Vec<u8>,
    /// Where each log ends.
    ends: Vec<usize>,
    /// Records of which something was replaced.
    sanitized: u64,
}

/// The values of one column.
#[derive(Debug)]
enum Values<'a> {
    Elsewhere,
    Text(Vec<Option<Cow<'a, str>>>),
    Whole(Vec<Option<i64>>),
    Code(Vec<Option<i32>>),
    Number(Vec<Option<f64>>),
    Flag(Vec<Option<bool>>),
}

impl Values<'_> {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Id | Kind::Timestamp | Kind::Log => Self::Elsewhere,
            Kind::Text(_) | Kind::Model | Kind::Usd(_) => Self::Text(Vec::new()),
            Kind::Whole(_) => Self::Whole(Vec::new()),
            Kind::Code(_) => Self::Code(Vec::new()),
            Kind::Number(_) => Self::Number(Vec::new()),
            Kind::Flag(_) => Self::Flag(Vec::new()),
        }
    }
}

impl<'a> Rows<'a> {
    /// The records of a batch, with their logs in `memory`. One that cannot be read is rejected, and is no row.
    #[must_use]
    pub fn of(batch: Batch<'a>, mut memory: Vec<u8>) -> Self {
        memory.clear();
        let columns = COLUMNS.iter().map(|(_, kind)| Values::of(*kind)).collect();
        let mut rows = Self {
            records: Vec::with_capacity(batch.len()),
            ids: Vec::with_capacity(batch.len()),
            timestamps: Vec::with_capacity(batch.len()),
            columns,
            logs: memory,
            ends: Vec::with_capacity(batch.len()),
            sanitized: 0,
        };
        for record in batch.iter() {
            if let Err(reason) = rows.add(record) {
                record.reject(&reason);
            }
        }
        rows
    }

    /// Number of rows: of records that were not rejected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether every record was rejected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The place in the batch of a row's record.
    #[must_use]
    pub fn record(&self, row: usize) -> usize {
        self.records[row]
    }

    /// The day of a row.
    #[must_use]
    pub fn day(&self, row: usize) -> Day {
        Day::of(self.timestamps[row])
    }

    /// Number of records of which something was replaced, because PostgreSQL cannot hold it.
    #[must_use]
    pub fn sanitized(&self) -> u64 {
        self.sanitized
    }

    /// The days in UTC from which there are records.
    #[must_use]
    pub fn days(&self) -> BTreeSet<Day> {
        self.timestamps.iter().map(|timestamp| Day::of(*timestamp)).collect()
    }

    /// Calls `insert` with the parameters for some of the rows: those of these columns, in their order.
    pub async fn with_parameters<T>(
        &self,
        rows: Range<usize>,
        columns: &[Column],
        insert: impl AsyncFnOnce(&[&(dyn ToSql + Sync)]) -> T,
    ) -> T {
        let parts: Vec<Part<'_>> = COLUMNS
            .iter()
            .zip(&self.columns)
            .filter(|(column, _)| columns.contains(column))
            .map(|((_, kind), values)| self.part(*kind, values, rows.clone()))
            .collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parts.iter().map(Part::as_sql).collect();
        insert(&parameters).await
    }

    fn part<'r>(&'r self, kind: Kind, values: &'r Values<'a>, rows: Range<usize>) -> Part<'r> {
        match values {
            Values::Elsewhere if kind == Kind::Id => Part::Ids(&self.ids[rows]),
            Values::Elsewhere if kind == Kind::Timestamp => Part::Timestamps(&self.timestamps[rows]),
            Values::Elsewhere => Part::Logs(self.logs(rows)),
            Values::Text(values) => Part::Text(&values[rows]),
            Values::Whole(values) => Part::Whole(&values[rows]),
            Values::Code(values) => Part::Code(&values[rows]),
            Values::Number(values) => Part::Number(&values[rows]),
            Values::Flag(values) => Part::Flag(&values[rows]),
        }
    }

    /// The memory that [`of`](Self::of) was given.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        self.logs
    }

    fn logs(&self, rows: Range<usize>) -> Vec<Json<'_>> {
        let start = |row: usize| row.checked_sub(1).map_or(0, |before| self.ends[before]);
        rows.map(|row| Json(&self.logs[start(row)..self.ends[row]])).collect()
    }

    fn add(&mut self, record: Record<'a>) -> Result<(), String> {
        let fields = record.fields().map_err(|error| error.to_string())?;
        let id = text(&fields, Field::Id).and_then(|id| Uuid::try_parse(&id).ok());
        let id = id.ok_or("the record's id is no UUID")?;
        let timestamp = text(&fields, Field::Timestamp).and_then(|text| humantime::parse_rfc3339(&text).ok());
        let timestamp = timestamp.ok_or("the record's timestamp is no RFC 3339 time")?;
        let start = self.logs.len();
        if let Err(error) = record.to_otel_log().write_to(&mut self.logs) {
            self.logs.truncate(start);
            return Err(error.to_string());
        }
        let replaced = replace_forbidden_escapes(&mut self.logs[start..]);
        self.sanitized += u64::from(replaced > 0);
        self.ends.push(self.logs.len());
        self.records.push(record.index());
        self.ids.push(id);
        self.timestamps.push(timestamp);
        for ((_, kind), values) in COLUMNS.iter().zip(&mut self.columns) {
            values.push(*kind, &fields);
        }
        Ok(())
    }
}

/// The values of one column, of some of the rows.
enum Part<'r> {
    Ids(&'r [Uuid]),
    Timestamps(&'r [SystemTime]),
    Logs(Vec<Json<'r>>),
    Text(&'r [Option<Cow<'r, str>>]),
    Whole(&'r [Option<i64>]),
    Code(&'r [Option<i32>]),
    Number(&'r [Option<f64>]),
    Flag(&'r [Option<bool>]),
}

impl Part<'_> {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Ids(values) => values,
            Self::Timestamps(values) => values,
            Self::Logs(values) => values,
            Self::Text(values) => values,
            Self::Whole(values) => values,
            Self::Code(values) => values,
            Self::Number(values) => values,
            Self::Flag(values) => values,
        }
    }
}

impl<'a> Values<'a> {
    fn push(&mut self, kind: Kind, fields: &Fields<'a>) {
        match (self, kind) {
            (Self::Text(values), Kind::Text(field)) => values.push(text(fields, field)),
            (Self::Text(values), Kind::Model) => {
                values.push(text(fields, Field::Model).or_else(|| text(fields, Field::RequestModel)));
            }
            (Self::Text(values), Kind::Usd(field)) => {
                values.push(fields.raw(field).filter(|raw| *raw != "null").map(Cow::Borrowed));
            }
            // A count that no honest provider reports is only in the log.
            (Self::Whole(values), Kind::Whole(field)) => {
                values.push(fields.whole(field).and_then(|whole| i64::try_from(whole).ok()));
            }
            (Self::Code(values), Kind::Code(field)) => {
                values.push(fields.whole(field).and_then(|whole| i32::try_from(whole).ok()));
            }
            (Self::Number(values), Kind::Number(field)) => values.push(fields.number(field)),
            (Self::Flag(values), Kind::Flag(field)) => values.push(fields.flag(field)),
            // `of` made these vectors from the same kinds.
            _ => {}
        }
    }
}

/// A text that PostgreSQL can hold: its texts have no zero byte.
fn text<'a>(fields: &Fields<'a>, field: Field) -> Option<Cow<'a, str>> {
    let text = fields.text(field)?;
    if memchr::memchr(0, text.as_bytes()).is_none() {
        return Some(text);
    }
    Some(Cow::Owned(text.replace('\0', "\u{fffd}")))
}

/// JSON text that goes into a `jsonb` as it is.
#[derive(Debug, Clone, Copy)]
struct Json<'a>(&'a [u8]);

impl ToSql for Json<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        // The version of jsonb's binary form; what follows is JSON text.
        out.put_u8(1);
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    accepts!(JSONB);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_as_version_1_of_jsonb() {
        let mut out = BytesMut::new();
        Json(br#"{"a":1}"#).to_sql_checked(&Type::JSONB, &mut out).unwrap();
        assert_eq!(&out[..], b"\x01{\"a\":1}");
        assert!(Json(b"{}").to_sql_checked(&Type::TEXT, &mut out).is_err());
    }

    #[test]
    fn values_are_those_of_the_record() {
        let fields = Fields::parse(
            br#"{"model":null,"request_model":"a\u0000b","cost":0.000000045,"input_tokens":18446744073709551615,
                "output_tokens":7,"status_code":200,"ttft":412.5,"is_streaming":true}"#,
        )
        .unwrap();
        let value = |kind| {
            let mut values = Values::of(kind);
            values.push(kind, &fields);
            format!("{values:?}")
        };
        for (kind, expected) in [
            (Kind::Model, "Text([Some(\"a\u{fffd}b\")])"),
            (Kind::Text(Field::OrgId), "Text([None])"),
            (Kind::Usd(Field::Cost), "Text([Some(\"0.000000045\")])"),
            (Kind::Whole(Field::InputTokens), "Whole([None])"),
            (Kind::Whole(Field::OutputTokens), "Whole([Some(7)])"),
            (Kind::Code(Field::StatusCode), "Code([Some(200)])"),
            (Kind::Number(Field::Ttft), "Number([Some(412.5)])"),
            (Kind::Flag(Field::IsStreaming), "Flag([Some(true)])"),
        ] {
            assert_eq!(value(kind), expected);
        }
    }
}
