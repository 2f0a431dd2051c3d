//go:build !linux

package main

import "syscall"

// confine keeps what this process holds in memory out of core files; the rest can't be had on this system.
func confine() error { return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) }
