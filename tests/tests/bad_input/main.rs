//! Bad input of every kind: each is refused with a message that says what, why and what to do, with the right exit
//! code, and what was there before is still there. No message and no log line repeats what a record says.

mod before;
mod disk;
mod folder;
mod large;
mod neighbour;
mod records;
mod token;
