//! What the scripts answer: arrays of integers.

use redis::Value;

use crate::ask::{Ask, Given, Verdict};
use crate::clock::Micros;
use crate::settlement::Settled;
use crate::store::StoreError;

/// A parsed answer: what happened, the server's time, and the numbers behind.
#[derive(Debug)]
pub(super) struct Reply {
    what: i64,
    pub(super) now: Micros,
    pub(super) numbers: Vec<i64>,
}

impl Reply {
    pub(super) fn parse(operation: &'static str, value: Value) -> Result<Self, StoreError> {
        let numbers: Vec<i64> = redis::from_redis_value(value).map_err(|error| strange(operation, &error.to_string()))?;
        match numbers.split_first_chunk::<2>() {
            Some((&[what, now], rest)) => Ok(Self { what, now: u64::try_from(now).unwrap_or(0), numbers: rest.to_vec() }),
            None => Err(strange(operation, "fewer than two numbers")),
        }
    }

    pub(super) fn is_other_period(&self) -> bool {
        self.what == 3
    }

    /// The verdict; `None` when the calendar moved on.
    pub(super) fn verdict(&self, operation: &'static str, ask: &Ask<'_>) -> Result<Option<Verdict>, StoreError> {
        match self.what {
            0 => match *self.numbers.as_slice() {
                [row, wait, left] if usize::try_from(row).is_ok_and(|row| row < ask.rows.len()) => {
                    Ok(Some(Verdict::Refused { row: usize::try_from(row).unwrap_or(0), wait: u64::try_from(wait).unwrap_or(0), left }))
                }
                _ => Err(strange(operation, "a refusal of an unknown limit")),
            },
            1 | 2 => {
                let (rows, rest) = self.numbers.as_chunks::<3>();
                if !rest.is_empty() || rows.len() != ask.rows.len() {
                    return Err(strange(operation, "not three numbers per limit"));
                }
                let given = rows.iter().map(|&[held, left, full_in]| Given {
                    held: u64::try_from(held).unwrap_or(0),
                    left,
                    full_in: u64::try_from(full_in).unwrap_or(0),
                });
                Ok(Some(Verdict::Granted(given.collect())))
            }
            3 => Ok(None),
            4 => Err(StoreError::SpendUnknown { organisation: ask.limits.subject.organisation.clone() }),
            other => Err(strange(operation, &format!("unknown answer {other}"))),
        }
    }

    pub(super) fn settled(&self) -> Result<Settled, StoreError> {
        match self.what {
            1 => Ok(Settled::Applied),
            2 => Ok(Settled::Repeated),
            3 => Ok(Settled::Restored),
            4 => Ok(Settled::Expired),
            other => Err(strange("settle", &format!("unknown answer {other}"))),
        }
    }

    pub(super) fn pairs(&self, operation: &'static str, count: usize) -> Result<impl Iterator<Item = (i64, Micros)> + '_, StoreError> {
        let (pairs, rest) = self.numbers.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() != count {
            return Err(strange(operation, "not two numbers per limit"));
        }
        Ok(pairs.iter().map(|&[left, full_in]| (left, u64::try_from(full_in).unwrap_or(0))))
    }
}

fn strange(operation: &'static str, detail: &str) -> StoreError {
    StoreError::Protocol { operation, detail: detail.to_owned() }
}
