//! Record bytes → [`Event`]. Pure; hostile input gives an error value, never a panic.

use std::net::SocketAddr;

use ktrdr_ebpf_common::{
    ConnTuple, ConnectErrorBody, DataBody, EventHeader, ExecBody, ExitBody, ForkBody, PyCopyBody, PyWorkBody,
    SEND, StateBody, WriteBody, file, flags, kind,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    Body, ConnId, ConnectError, Data, Direction, Event, Exec, Exit, FileKind, Fork, PyCopy, PyWork, PyWrite,
    ShellEvent, State, Tuple, Write, canonical, shell,
};

/// Why a record was not decoded. Each is counted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the header or the body needs, or than a length field promises.
    #[error("record is shorter than its kind needs")]
    Short,
    /// A kind this build does not know.
    #[error("record of an unknown kind")]
    UnknownKind,
    /// A field holds a value outside its domain.
    #[error("record with an invalid field")]
    Invalid,
}

/// Decodes one record.
pub fn decode(record: &[u8]) -> Result<Event<'_>, DecodeError> {
    let (header, rest) = take::<EventHeader>(record)?;
    let losses = (header.kind < kind::SHELL_KINDS).then_some(header.losses());
    // Called where each body is made: made first and put in behind the match, it would be copied once more.
    let event = |body| Ok(Event { ts: header.ts, tgid: header.tgid, tid: header.tid, losses, body });
    match header.kind {
        kind::DATA => event(Body::Data(data(&header, rest)?)),
        kind::STATE => event(Body::State(state(rest)?)),
        kind::EXEC => event(Body::Exec(exec(rest)?)),
        kind::FORK => {
            let (f, _) = take::<ForkBody>(rest)?;
            event(Body::Fork(Fork {
                child_tgid: f.child_tgid,
                child_tid: f.child_tid,
                py_context: f.py_context,
                thread: header.flags & flags::THREAD != 0,
            }))
        }
        kind::EXIT => {
            let (e, _) = take::<ExitBody>(rest)?;
            let out_of_memory = header.flags & flags::OUT_OF_MEMORY != 0;
            event(Body::Exit(Exit { code: e.code, ppid: e.ppid, out_of_memory }))
        }
        kind::PY_COPY => {
            let (c, _) = take::<PyCopyBody>(rest)?;
            event(Body::PyCopy(PyCopy { parent: c.parent, child: c.child }))
        }
        kind::PY_SUBMIT => event(Body::PySubmit(work(rest)?)),
        kind::PY_TAKE => event(Body::PyTake(work(rest)?)),
        kind::PY_WRITE => {
            let PyWork { py_context, item } = work(rest)?;
            let behind = header.flags & flags::BEHIND != 0;
            event(Body::PyWrite(PyWrite { py_context, number: item, behind }))
        }
        kind::CONNECT_ERROR => event(Body::ConnectError(connect_error(rest)?)),
        kind::WRITE => event(Body::Write(write(rest)?)),
        kind::READ => event(Body::Read(write(rest)?)),
        shell::TICK => event(Body::Tick),
        shell::JSON => {
            let fact = ShellEvent::from_json(rest).map_err(|_| DecodeError::Invalid)?;
            event(Body::Shell(Box::new(fact)))
        }
        _ => Err(DecodeError::UnknownKind),
    }
}

fn take<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(bytes).map_err(|_| DecodeError::Short)
}

fn work(rest: &[u8]) -> Result<PyWork, DecodeError> {
    let (w, _) = take::<PyWorkBody>(rest)?;
    Ok(PyWork { py_context: w.py_context, item: w.item })
}

fn tuple(t: &ConnTuple) -> Tuple {
    Tuple {
        local: SocketAddr::new(canonical(t.local_addr), t.local_port),
        remote: SocketAddr::new(canonical(t.remote_addr), t.remote_port),
        netns: t.netns,
    }
}

#[inline]
fn data<'a>(header: &EventHeader, rest: &'a [u8]) -> Result<Data<'a>, DecodeError> {
    let (d, rest) = take::<DataBody>(rest)?;
    let (conn_tuple, rest) = if header.flags & flags::TUPLE != 0 {
        let (t, rest) = take::<ConnTuple>(rest)?;
        (Some(tuple(&t)), rest)
    } else {
        (None, rest)
    };
    let captured = usize::try_from(d.captured).map_err(|_| DecodeError::Invalid)?;
    if d.captured > d.len {
        return Err(DecodeError::Invalid);
    }
    Ok(Data {
        conn: ConnId(d.conn),
        py_context: d.py_context,
        direction: if d.direction == SEND { Direction::Send } else { Direction::Recv },
        seq_end: d.seq_end,
        len: d.len,
        payload: rest.get(..captured).ok_or(DecodeError::Short)?,
        tuple: conn_tuple,
        eof: header.flags & flags::EOF != 0,
        no_buffer: header.flags & flags::NO_BUFFER != 0,
        fault: header.flags & flags::FAULT != 0,
        second: header.flags & flags::SECOND != 0,
    })
}

#[inline]
fn state(rest: &[u8]) -> Result<State, DecodeError> {
    let (s, _) = take::<StateBody>(rest)?;
    Ok(State {
        conn: ConnId(s.conn),
        py_context: s.py_context,
        old: s.old,
        new: s.new,
        error: s.error,
        write_seq: s.write_seq,
        copied_seq: s.copied_seq,
        tuple: tuple(&s.tuple),
    })
}

fn exec(rest: &[u8]) -> Result<Exec<'_>, DecodeError> {
    let (e, rest) = take::<ExecBody>(rest)?;
    let len = usize::try_from(e.args_len).map_err(|_| DecodeError::Invalid)?;
    let args = rest.get(..len).ok_or(DecodeError::Short)?;
    Ok(Exec { ppid: e.ppid, comm: e.comm, args })
}

#[inline]
fn write(rest: &[u8]) -> Result<Write<'_>, DecodeError> {
    let (w, rest) = take::<WriteBody>(rest)?;
    let captured = usize::try_from(w.captured).map_err(|_| DecodeError::Invalid)?;
    if w.offset.checked_add(w.captured).is_none_or(|end| end > w.len) {
        return Err(DecodeError::Invalid);
    }
    Ok(Write {
        py_context: w.py_context,
        id: w.id,
        kind: match w.file {
            file::PIPE => FileKind::Pipe,
            file::TERMINAL => FileKind::Terminal,
            file::REGULAR => FileKind::Regular,
            file::UNIX_SOCKET => FileKind::UnixSocket,
            _ => return Err(DecodeError::Invalid),
        },
        fd: w.fd,
        len: w.len,
        offset: w.offset,
        payload: rest.get(..captured).ok_or(DecodeError::Short)?,
        lost: w.lost,
    })
}

fn connect_error(rest: &[u8]) -> Result<ConnectError, DecodeError> {
    let (c, _) = take::<ConnectErrorBody>(rest)?;
    Ok(ConnectError {
        py_context: c.py_context,
        error: u16::try_from(c.error).map_err(|_| DecodeError::Invalid)?,
        remote: SocketAddr::new(canonical(c.remote_addr), c.remote_port),
        netns: c.netns,
    })
}
