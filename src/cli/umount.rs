//! `pigeonfs umount`
