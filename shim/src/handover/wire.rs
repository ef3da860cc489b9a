//! How what serde cannot write by itself stands in a handed-over state: descriptors as their numbers, protobuf messages as
//! their bytes, deadlines as the time that is left.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;

thread_local! {
    /// Descriptors named by what is being written, where that is asked for.
    static NAMED: RefCell<Option<Vec<RawFd>>> = const { RefCell::new(None) };
    /// Reading takes no descriptor over.
    static DRY: Cell<bool> = const { Cell::new(false) };
}

/// What `write` returns, and the descriptors that it named.
pub(super) fn collecting<T>(write: impl FnOnce() -> T) -> (T, Vec<RawFd>) {
    NAMED.set(Some(Vec::new()));
    let written = write();
    (written, NAMED.take().unwrap_or_default())
}

/// Reads with /dev/null in the place of every descriptor.
pub(crate) fn without_descriptors<T>(read: impl FnOnce() -> T) -> T {
    DRY.set(true);
    let result = read();
    DRY.set(false);
    result
}

/// An open descriptor, of whatever type owns it.
pub(crate) mod descriptor {
    use super::{DRY, NAMED};
    use crate::sys;
    use rustix::fd::{AsFd, AsRawFd, OwnedFd};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: AsFd, S: Serializer>(fd: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let number = fd.as_fd().as_raw_fd();
        NAMED.with_borrow_mut(|named| named.iter_mut().for_each(|named| named.push(number)));
        serializer.serialize_i32(number)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: From<OwnedFd>,
        D: Deserializer<'de>,
    {
        let number = i32::deserialize(deserializer)?;
        let taken =
            if DRY.get() { std::fs::File::open("/dev/null").map(OwnedFd::from) } else { sys::adopt(number) };
        taken.map(T::from).map_err(|e| Error::custom(format!("descriptor {number}: {e}")))
    }
}

pub(crate) mod optional_descriptor {
    use super::descriptor;
    use rustix::fd::{AsFd, OwnedFd};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    struct Borrowed<'a, T>(&'a T);

    impl<T: AsFd> Serialize for Borrowed<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            descriptor::serialize(self.0, serializer)
        }
    }

    #[derive(Deserialize)]
    struct Owned(#[serde(with = "descriptor")] OwnedFd);

    pub(crate) fn serialize<T: AsFd, S: Serializer>(
        fd: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        fd.as_ref().map(Borrowed).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: From<OwnedFd>,
        D: Deserializer<'de>,
    {
        Ok(Option::<Owned>::deserialize(deserializer)?.map(|owned| T::from(owned.0)))
    }
}

/// One protobuf message.
pub(crate) mod message {
    use prost::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<M: Message, S: Serializer>(
        message: &M,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        message.encode_to_vec().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, M, D>(deserializer: D) -> Result<M, D::Error>
    where
        M: Message + Default,
        D: Deserializer<'de>,
    {
        M::decode(Vec::deserialize(deserializer)?.as_slice()).map_err(Error::custom)
    }
}

pub(crate) mod optional_message {
    use super::messages;
    use prost::Message;
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<M: Message, S: Serializer>(
        message: &Option<M>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        messages::serialize(message, serializer)
    }

    pub(crate) fn deserialize<'de, M, D>(deserializer: D) -> Result<Option<M>, D::Error>
    where
        M: Message + Default,
        D: Deserializer<'de>,
    {
        messages::deserialize::<M, Vec<M>, D>(deserializer).map(|found| found.into_iter().next())
    }
}

/// Any number of protobuf messages of one type.
pub(crate) mod messages {
    use prost::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<'a, M, C, S>(messages: &'a C, serializer: S) -> Result<S::Ok, S::Error>
    where
        M: Message + 'a,
        &'a C: IntoIterator<Item = &'a M>,
        S: Serializer,
    {
        serializer.collect_seq(messages.into_iter().map(Message::encode_to_vec))
    }

    pub(crate) fn deserialize<'de, M, C, D>(deserializer: D) -> Result<C, D::Error>
    where
        M: Message + Default,
        C: FromIterator<M>,
        D: Deserializer<'de>,
    {
        let encoded = Vec::<Vec<u8>>::deserialize(deserializer)?;
        encoded
            .iter()
            .map(|bytes| M::decode(bytes.as_slice()))
            .collect::<Result<C, _>>()
            .map_err(Error::custom)
    }
}

/// A moment of the monotonic clock, which another process reads the same way but cannot be told.
pub(crate) mod deadline {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::{Duration, Instant};

    pub(crate) fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        at.saturating_duration_since(Instant::now()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        Ok(Instant::now() + Duration::deserialize(deserializer)?)
    }
}
