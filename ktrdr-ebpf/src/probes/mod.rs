//! One file per hook family. A program's section names its hook; the agent's table says what it needs.

pub mod calls;
mod connect;
mod functions;
mod points;
mod pool;
mod process;
mod python;
mod read;
mod state;
mod stream;
mod sys_exit;
mod transfer;
mod write;
