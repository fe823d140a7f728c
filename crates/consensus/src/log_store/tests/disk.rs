//! A disk that forgets what was not synced, fails on demand and can be looked into.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

/// A disk. Clones are the same one; [`Disk::pull_the_plug`] gives another with what has survived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is on the medium.
    durable: Vec<u8>,
    /// What reads see.
    seen: Vec<u8>,
    unsynced: Vec<Write>,
    /// Operations that change something, so far.
    operations: u64,
    fault: Option<(u64, Fault)>,
    dead: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine stops before this operation.
    PowerLoss,
    /// The sync reports an error; whether the data arrived is open.
    Sync,
    /// No space is left for the write.
    Full,
    /// Half of the write is done, and then an error.
    ShortWrite,
}

impl Disk {
    /// The operation of this number meets the fault.
    pub(crate) fn fail_at(&self, operation: u64, fault: Fault) {
        self.inner.lock().fault = Some((operation, fault));
    }

    /// Operations so far that change something.
    pub(crate) fn operations(&self) -> u64 {
        self.inner.lock().operations
    }

    /// Whether the fault has been met.
    pub(crate) fn fault_was_met(&self) -> bool {
        self.inner.lock().fault.is_none()
    }

    /// The disk as it is found after a loss of power: of what was not synced, some writes have arrived, some not, and one perhaps in part.
    /// This one refuses everything from now on.
    pub(crate) fn pull_the_plug(&self, random: &mut fastrand::Rng) -> Self {
        let mut inner = self.inner.lock();
        inner.dead = true;
        let mut image = inner.durable.clone();
        // Any subset may have arrived, and often none or all have.
        let share = [0.0, 0.5, 1.0][random.usize(0..3)];
        for write in inner.unsynced.clone() {
            if random.f64() >= share {
                continue;
            }
            match write {
                Write::Length(length) => image.resize(length as usize, 0),
                Write::Bytes(at, bytes) => {
                    let torn = if random.u8(0..8) == 0 { random.usize(0..=bytes.len()) } else { bytes.len() };
                    put(&mut image, at, &bytes[..torn]);
                }
            }
        }
        Self::holding(image)
    }

    /// The disk after an orderly stop.
    pub(crate) fn reopen(&self) -> Self {
        let mut inner = self.inner.lock();
        inner.dead = true;
        Self::holding(inner.seen.clone())
    }

    /// Turns one bit over. Returns its place.
    pub(crate) fn flip_a_bit(&self, random: &mut fastrand::Rng) -> usize {
        let mut inner = self.inner.lock();
        let bit = random.usize(0..inner.seen.len() * 8);
        inner.seen[bit / 8] ^= 1 << (bit % 8);
        inner.durable = inner.seen.clone();
        bit
    }

    fn holding(image: Vec<u8>) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { durable: image.clone(), seen: image, ..Inner::default() })) }
    }
}

fn put(image: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = at as usize;
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Inner {
    /// Counts an operation and says what goes wrong with it.
    fn next(&mut self) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(io::Error::other("the machine is off"));
        }
        let number = self.operations;
        self.operations += 1;
        let fault = self.fault.take_if(|(at, _)| *at <= number).map(|(_, fault)| fault);
        if fault == Some(Fault::PowerLoss) {
            self.dead = true;
            return Err(io::Error::other("the machine is off"));
        }
        Ok(fault)
    }

    fn write(&mut self, write: Write) {
        match &write {
            Write::Length(length) => self.seen.resize(*length as usize, 0),
            Write::Bytes(at, bytes) => put(&mut self.seen, *at, bytes),
        }
        self.unsynced.push(write);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock();
        let from = offset as usize;
        let bytes = inner.seen.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        match inner.next()? {
            Some(Fault::Full | Fault::ShortWrite) => Err(io::ErrorKind::StorageFull.into()),
            _ => {
                inner.write(Write::Length(len));
                Ok(())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        match inner.next()? {
            Some(_) => Err(io::Error::other("the disk says that the sync has failed")),
            None => {
                inner.durable = inner.seen.clone();
                inner.unsynced.clear();
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        match inner.next()? {
            None => {
                inner.write(Write::Bytes(offset, data.to_vec()));
                Ok(())
            }
            Some(Fault::ShortWrite) => {
                inner.write(Write::Bytes(offset, data[..data.len() / 2].to_vec()));
                Err(io::ErrorKind::WriteZero.into())
            }
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}
