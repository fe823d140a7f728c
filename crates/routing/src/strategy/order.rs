//! The order of configuration: always the first that can be used.

use super::Pool;

pub(super) fn pick(pool: &Pool) -> usize {
    pool[0]
}
