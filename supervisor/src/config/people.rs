//! Users, groups and permission bits in the configuration. Names become numbers when it is read: an unknown
//! one is an error with its place, and nobody is looked up later.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::access::Allowed;
use crate::sys;

/// `{ users = ["www-data", 1000], groups = ["web"] }`.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowedFile {
    users: Vec<UserFile>,
    groups: Vec<GroupFile>,
}

impl<'de> Deserialize<'de> for AllowedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AllowedFile, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Lists {
            users: Vec<UserFile>,
            groups: Vec<GroupFile>,
        }
        struct Table;
        // Serde would take a bare list for the fields in their order.
        impl<'de> de::Visitor<'de> for Table {
            type Value = AllowedFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table, like { users = [\"www-data\", 1000], groups = [\"web\"] }")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<AllowedFile, A::Error> {
                let Lists { users, groups } = Lists::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(AllowedFile { users, groups })
            }
        }
        deserializer.deserialize_any(Table)
    }
}

impl AllowedFile {
    /// As numbers.
    pub fn allowed(&self) -> Allowed {
        let mut users: Vec<u32> = self.users.iter().map(|user| user.0).collect();
        users.extend(self.groups.iter().flat_map(|group| &group.members));
        Allowed { users, groups: self.groups.iter().map(|group| group.number).collect() }
    }
}

#[derive(Clone, Copy, Debug)]
struct UserFile(u32);

#[derive(Clone, Debug)]
struct GroupFile {
    number: u32,
    members: Vec<u32>,
}

impl<'de> Deserialize<'de> for UserFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UserFile, D::Error> {
        struct User;
        // Looked up within the visitor, so that an error has the place of the one name.
        impl de::Visitor<'_> for User {
            type Value = UserFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user by name or number, like \"www-data\" or 33")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<UserFile, E> {
                id(number).map(UserFile).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<UserFile, E> {
                found("user", name, sys::user_number(name)).map(UserFile)
            }
        }
        deserializer.deserialize_any(User)
    }
}

impl<'de> Deserialize<'de> for GroupFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GroupFile, D::Error> {
        struct Group;
        impl de::Visitor<'_> for Group {
            type Value = GroupFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a group by name or number, like \"www-data\" or 33")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<GroupFile, E> {
                let number = id(number).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))?;
                // It needs no entry in the database; where there is one, its members count too.
                let members = sys::group_members_of(number).map(|found| found.or(Some((number, Vec::new()))));
                let (number, members) = found("group", &number.to_string(), members)?;
                Ok(GroupFile { number, members })
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<GroupFile, E> {
                let (number, members) = found("group", name, sys::group_members(name))?;
                Ok(GroupFile { number, members })
            }
        }
        deserializer.deserialize_any(Group)
    }
}

/// The highest number means "nobody in particular" to the kernel.
fn id(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number != u32::MAX)
}

fn found<T, E: de::Error>(what: &str, name: &str, found: std::io::Result<Option<T>>) -> Result<T, E> {
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(E::custom(format_args!(
            "there is no {what} `{name}` on this system: create it, or write its number without quotes"
        ))),
        Err(error) => Err(E::custom(format_args!("cannot look up {what} `{name}`: {error}"))),
    }
}

/// `socket_user`.
pub(super) fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    UserFile::deserialize(deserializer).map(|user| Some(user.0))
}

/// `socket_group`.
pub(super) fn group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    GroupFile::deserialize(deserializer).map(|group| Some(group.number))
}

/// Permission bits as `chmod` takes them.
pub(super) fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = Some(&text).filter(|_| octal).and_then(|text| u32::from_str_radix(text, 8).ok());
    match mode {
        Some(mode) if mode > 0o777 => {
            Err(de::Error::custom(format_args!("`{text}` is out of range: at most \"0777\"")))
        }
        Some(mode) if mode & 0o222 == 0 => Err(de::Error::custom(format_args!(
            "with `{text}` nobody could connect, which takes the permission to write: \"0600\", \"0660\" or \"0666\""
        ))),
        Some(mode) => Ok(mode),
        None => Err(de::Error::custom(format_args!("`{text}` is no mode: octal digits as for chmod, like \"0660\""))),
    }
}
