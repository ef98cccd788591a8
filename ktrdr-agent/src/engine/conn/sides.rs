//! Directions of a socket, and sides of the conversation on it.

use crate::event::Direction;
use crate::protocol::{Role, Side};

/// Place of a direction in what is kept for both.
pub(super) fn index(direction: Direction) -> usize {
    match direction {
        Direction::Recv => 0,
        Direction::Send => 1,
    }
}

/// The side that bytes of this direction belong to.
pub(super) fn side(role: Role, direction: Direction) -> Side {
    match (role, direction) {
        (Role::Server, Direction::Recv) | (Role::Client, Direction::Send) => Side::Request,
        (Role::Server, Direction::Send) | (Role::Client, Direction::Recv) => Side::Response,
    }
}

/// The role of a socket whose bytes in this direction belong to `side`.
pub(super) fn role_of(side: Side, direction: Direction) -> Role {
    match (side, direction) {
        (Side::Request, Direction::Recv) | (Side::Response, Direction::Send) => Role::Server,
        (Side::Request, Direction::Send) | (Side::Response, Direction::Recv) => Role::Client,
    }
}
