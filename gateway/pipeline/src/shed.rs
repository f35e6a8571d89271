//! What a record loses first where it is too large.

/// How much of a record may go to make it smaller. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shed {
    /// The chunks of a stream; the folded answer stays.
    StreamedData,
    /// The answer.
    Response,
    /// The request. Identity, usage, cost and outcome always stay.
    Request,
}

impl Shed {
    /// Every level, the most expendable first.
    pub const ORDER: [Self; 3] = [Self::StreamedData, Self::Response, Self::Request];

    /// As the record's `truncated` names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StreamedData => "streamed_data",
            Self::Response => "response",
            Self::Request => "request",
        }
    }

    /// A record without as many of its bodies as it takes to be no larger than `wanted`, or without all of them if that is
    /// not enough; `None` when there is nothing to take off. `without` makes the record of a level and says its bytes.
    pub fn reduce<T>(wanted: u64, without: impl Fn(Self) -> Option<(T, u64)>) -> Option<(T, u64)> {
        let mut smallest = None;
        for (record, size) in Self::ORDER.into_iter().filter_map(without) {
            smallest = Some((record, size));
            if size <= wanted {
                break;
            }
        }
        smallest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes without the chunks, without the answer, and without the request.
    fn reduced(wanted: u64, sizes: [Option<u64>; 3]) -> Option<u64> {
        let size = |level: Shed| sizes[level as usize].map(|size| ((), size));
        Shed::reduce(wanted, size).map(|((), size)| size)
    }

    #[test]
    fn a_record_loses_no_more_bodies_than_it_must() {
        let all = [Some(30), Some(20), Some(10)];
        for (wanted, expected) in [(100, 30), (30, 30), (29, 20), (20, 20), (19, 10), (10, 10), (0, 10)] {
            assert_eq!(reduced(wanted, all), Some(expected), "{wanted}");
        }
        assert_eq!(reduced(100, [None, Some(20), Some(10)]), Some(20), "no stream");
        assert_eq!(reduced(0, [None, None, None]), None);
    }
}
