//! The application of the simulator: a few registers, and a chain of digests over all that was ever applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::application::{Application, Frozen, RestoreError};

/// What is asked of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Get,
    Put(u64),
    /// Replaces the first by the second.
    Swap(Option<u64>, u64),
    Delete,
}

/// What a register answers: what it held before, and whether it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) before: Option<u64>,
    pub(crate) changed: bool,
}

impl Operation {
    /// The meaning, for the registers and for the checker alike.
    pub(crate) fn on(self, value: Option<u64>) -> (Option<u64>, Answer) {
        let after = match self {
            Self::Get => value,
            Self::Put(new) => Some(new),
            Self::Swap(expected, new) if expected == value => Some(new),
            Self::Swap(..) => value,
            Self::Delete => None,
        };
        let changed = match self {
            Self::Get => false,
            Self::Put(_) => true,
            Self::Swap(expected, _) => expected == value,
            Self::Delete => value.is_some(),
        };
        (after, Answer { before: value, changed })
    }

    /// The command for one register.
    pub(crate) fn command(self, key: u8) -> Bytes {
        let (kind, expected, new) = match self {
            Self::Get => (0, None, 0),
            Self::Put(new) => (1, None, new),
            Self::Swap(expected, new) => (2, expected, new),
            Self::Delete => (3, None, 0),
        };
        let mut bytes = vec![kind, key, u8::from(expected.is_some())];
        bytes.extend_from_slice(&expected.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&new.to_le_bytes());
        bytes.into()
    }

    fn read(command: &[u8]) -> (u8, Self) {
        let number = |at: usize| u64::from_le_bytes(command[at..at + 8].try_into().unwrap());
        let operation = match command[0] {
            0 => Self::Get,
            1 => Self::Put(number(11)),
            2 => Self::Swap((command[2] == 1).then(|| number(3)), number(11)),
            _ => Self::Delete,
        };
        (command[1], operation)
    }
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let before = u64::from_le_bytes(bytes[2..10].try_into().unwrap());
        Self { before: (bytes[0] == 1).then_some(before), changed: bytes[1] == 1 }
    }

    fn bytes(self) -> Bytes {
        let mut bytes = vec![u8::from(self.before.is_some()), u8::from(self.changed)];
        bytes.extend_from_slice(&self.before.unwrap_or(0).to_le_bytes());
        bytes.into()
    }
}

/// What all nodes together have applied: the digest after each index, as the first has found it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    chain: BTreeMap<u64, [u8; 32]>,
    pub(crate) violations: Vec<String>,
}

impl Ledger {
    fn record(&mut self, node: u64, index: u64, chain: [u8; 32]) {
        if *self.chain.entry(index).or_insert(chain) != chain {
            self.violations.push(format!("node {node} has another state at index {index} than the first that was there"));
        }
    }

    /// Whether any node has applied an application's entry of this index.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.chain.contains_key(&index)
    }
}

/// The state of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registers {
    pub(crate) values: BTreeMap<u8, u64>,
    pub(crate) chain: [u8; 32],
    pub(crate) last: u64,
}

/// The application of one node.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) node: u64,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) registers: Arc<Mutex<Registers>>,
}

impl Application for Replica {
    fn apply(&mut self, index: u64, term: u64, payload: Bytes) -> Bytes {
        let mut registers = self.registers.lock();
        if index <= registers.last {
            let text = format!("node {} has applied index {index} at index {}", self.node, registers.last);
            self.ledger.lock().violations.push(text);
        }
        registers.last = index;
        let (key, operation) = Operation::read(&payload);
        let (after, answer) = operation.on(registers.values.get(&key).copied());
        match after {
            Some(value) => registers.values.insert(key, value),
            None => registers.values.remove(&key),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&registers.chain).update(&index.to_le_bytes()).update(&term.to_le_bytes()).update(&payload);
        registers.chain = *hasher.finalize().as_bytes();
        self.ledger.lock().record(self.node, index, registers.chain);
        answer.bytes()
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(self.registers.lock().clone())
    }

    fn restore(&mut self, sections: Vec<(String, Bytes)>) -> Result<(), RestoreError> {
        let mut registers = Registers::default();
        for (name, content) in sections {
            match name.as_str() {
                "chain" => registers.chain = content.as_ref().try_into().unwrap(),
                "last" => registers.last = u64::from_le_bytes(content.as_ref().try_into().unwrap()),
                _ => {
                    registers.values.insert(name.parse().unwrap(), u64::from_le_bytes(content.as_ref().try_into().unwrap()));
                }
            }
        }
        *self.registers.lock() = registers;
        Ok(())
    }
}

impl Frozen for Registers {
    fn sections(&self) -> Vec<(String, Bytes)> {
        let number = |number: u64| Bytes::copy_from_slice(&number.to_le_bytes());
        let mut sections = vec![("chain".to_owned(), Bytes::copy_from_slice(&self.chain)), ("last".to_owned(), number(self.last))];
        sections.extend(self.values.iter().map(|(key, value)| (key.to_string(), number(*value))));
        sections
    }
}
