//! BACAP: capabilities, indices and boxes, and their text forms. Pure: no I/O, no clock.
