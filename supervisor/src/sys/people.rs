//! Users and groups.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

use crate::access::Creds;

/// Who this process is.
pub fn own_creds() -> Creds {
    Creds { pid: std::process::id() as i32, uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() }
}

/// The number of a user; none if there is no such user.
pub fn user_number(name: &str) -> io::Result<Option<u32>> {
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

/// The number of a group and those of its members; none if there is no such group. Who has it as the primary
/// group only is not listed there.
pub fn group_members(name: &str) -> io::Result<Option<(u32, Vec<u32>)>> {
    Group::from_name(name)?.map(with_members).transpose()
}

/// The same for a group that is known by its number.
pub fn group_members_of(number: u32) -> io::Result<Option<(u32, Vec<u32>)>> {
    Group::from_gid(Gid::from_raw(number))?.map(with_members).transpose()
}

fn with_members(group: Group) -> io::Result<(u32, Vec<u32>)> {
    let mut members = Vec::new();
    for name in &group.mem {
        // A member whose user is gone is nobody.
        members.extend(user_number(name)?);
    }
    Ok((group.gid.as_raw(), members))
}

/// The user that the supervisor acts as.
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Whether it may become any user.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// An entry of the user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The number.
    pub user: u32,
    /// Its own group.
    pub group: u32,
    /// The groups it is in, its own among them.
    pub groups: Vec<u32>,
    /// Its directory.
    pub home: PathBuf,
}

/// Looks a user up, by name or by number.
pub fn account(name: &str) -> io::Result<Option<Account>> {
    let entry = match (User::from_name(name)?, name.parse()) {
        (Some(entry), _) => Some(entry),
        (None, Ok(number)) => User::from_uid(Uid::from_raw(number))?,
        (None, Err(_)) => None,
    };
    let Some(entry) = entry else { return Ok(None) };
    let name = CString::new(entry.name.as_str())?;
    let groups = nix::unistd::getgrouplist(&name, entry.gid)?.into_iter().map(Gid::as_raw).collect();
    let (user, group) = (entry.uid.as_raw(), entry.gid.as_raw());
    Ok(Some(Account { name: entry.name, user, group, groups, home: entry.dir }))
}

/// Looks a group's number up by its name.
pub fn group_number(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}
