//! The groups as bytes, and sealed to their owner.
//!
//! Numbers little-endian: `"hyphagrp", version u16 = 1, people u16`, for each `key 32, sealing key 32, writes u8, name size u8, name`,
//! then `group count u16`, and for each group `id u64, epoch u64, name size u8, name, people u16`, for each which of the people it is,
//! u16, `groups u16`, 8 each, `spaces u16`, for each `register 32, path size u8, path`; then zeros. In the register they are padded so
//! that only whole KiB tell how much there is.

use std::collections::BTreeSet;

use bytes::Bytes;
use reactor::crypto::{PublicKey, X25519Public, X25519Secret, seal};

use super::super::root::Reader;
use super::{
    GROUPS_IN_MAX, GROUPS_MAX, Group, GroupId, Groups, Named, PEOPLE_IN_ALL_MAX, PEOPLE_MAX, Person,
    SIZE_MAX, SPACES_MAX,
};

const MAGIC: &[u8; 8] = b"hyphagrp";
const VERSION: u16 = 1;
/// What it is padded to.
const PADDING: usize = 1024;

impl Groups {
    /// As bytes, without padding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        let count = |out: &mut Vec<u8>, count: usize| out.extend_from_slice(&(count as u16).to_le_bytes());
        count(&mut out, self.people.len());
        for person in &self.people {
            out.extend_from_slice(person.key.as_bytes());
            out.extend_from_slice(&person.sealing_key);
            out.push(u8::from(person.may_write));
            out.push(person.name.len() as u8);
            out.extend_from_slice(person.name.as_bytes());
        }
        let place = |key: &PublicKey| self.people.iter().position(|person| person.key == *key);
        count(&mut out, self.groups.len());
        for group in &self.groups {
            out.extend_from_slice(&group.id.0.to_le_bytes());
            out.extend_from_slice(&group.epoch.to_le_bytes());
            out.push(group.name.len() as u8);
            out.extend_from_slice(group.name.as_bytes());
            count(&mut out, group.people.len());
            // Whoever is in a group is among the people, or `check` has refused it; a number past them is refused when it is read.
            group.people.iter().for_each(|key| count(&mut out, place(key).unwrap_or(usize::from(u16::MAX))));
            count(&mut out, group.groups.len());
            group.groups.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
            count(&mut out, group.spaces.len());
            for space in &group.spaces {
                out.extend_from_slice(&space.register);
                out.push(space.path.len() as u8);
                out.extend_from_slice(space.path.as_bytes());
            }
        }
        out
    }

    /// Reads what [`Groups::encode`] wrote, with or without padding; `None` if it is nothing that may be.
    pub fn decode(bytes: &[u8]) -> Option<Groups> {
        if bytes.len() > SIZE_MAX {
            return None;
        }
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC || reader.u16()? != VERSION {
            return None;
        }
        let count = reader.u16()?;
        if usize::from(count) > PEOPLE_IN_ALL_MAX {
            return None;
        }
        let people: Vec<Person> = (0..count).map(|_| decode_person(&mut reader)).collect::<Option<_>>()?;
        let count = reader.u16()?;
        if usize::from(count) > GROUPS_MAX {
            return None;
        }
        let groups = (0..count).map(|_| decode_group(&mut reader, &people)).collect::<Option<_>>()?;
        let groups = Groups { people, groups };
        let is_padding = reader.0.iter().all(|byte| *byte == 0);
        (is_padding && groups.check().is_ok()).then_some(groups)
    }

    /// As it lies in the register of whoever has `owner`'s secret.
    pub fn seal(&self, owner: &X25519Public) -> Bytes {
        let mut bytes = self.encode();
        bytes.resize(bytes.len().next_multiple_of(PADDING).min(SIZE_MAX), 0);
        seal::seal_to(owner, &bytes).into()
    }

    /// Opens it; `None` if it is not this owner's, or nothing that may be.
    pub fn open(payload: &[u8], owner: &X25519Secret) -> Option<Groups> {
        Groups::decode(&seal::open(owner, payload).ok()?)
    }
}

fn decode_person(reader: &mut Reader<'_>) -> Option<Person> {
    let (key, sealing_key) = (PublicKey::from_bytes(reader.array()?), reader.array()?);
    let may_write = match reader.take(1)? {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    Some(Person { key, sealing_key, may_write, name: text(reader)? })
}

fn decode_group(reader: &mut Reader<'_>, all: &[Person]) -> Option<Group> {
    let id = GroupId(u64::from_le_bytes(reader.array()?));
    let epoch = u64::from_le_bytes(reader.array()?);
    let name = text(reader)?;
    let bounded = |reader: &mut Reader<'_>, max| reader.u16().filter(|count| usize::from(*count) <= max);
    let count = bounded(reader, PEOPLE_MAX)?;
    let person = |reader: &mut Reader<'_>| reader.u16().and_then(|at| Some(all.get(usize::from(at))?.key));
    let people: Vec<PublicKey> = (0..count).map(|_| person(reader)).collect::<Option<_>>()?;
    let count = bounded(reader, GROUPS_IN_MAX)?;
    let group = |reader: &mut Reader<'_>| Some(GroupId(u64::from_le_bytes(reader.array()?)));
    let groups: Vec<GroupId> = (0..count).map(|_| group(reader)).collect::<Option<_>>()?;
    let count = bounded(reader, SPACES_MAX)?;
    let named = |reader: &mut Reader<'_>| Some(Named { register: reader.array()?, path: text(reader)? });
    let spaces: Vec<Named> = (0..count).map(|_| named(reader)).collect::<Option<_>>()?;
    let is_once = |count: usize, distinct: usize| count == distinct;
    let is_set = is_once(people.len(), people.iter().collect::<BTreeSet<_>>().len())
        && is_once(groups.len(), groups.iter().collect::<BTreeSet<_>>().len())
        && is_once(spaces.len(), spaces.iter().map(|space| space.register).collect::<BTreeSet<_>>().len());
    is_set.then_some(Group { id, epoch, name, people, groups, spaces })
}

fn text(reader: &mut Reader<'_>) -> Option<String> {
    let size = usize::from(reader.take(1)?[0]);
    std::str::from_utf8(reader.take(size)?).ok().map(Into::into)
}
