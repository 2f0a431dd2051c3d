//go:build !failpoint || !linux

// Package failpoint marks places at which a test has a process killed, an error returned or time pass. Built without the tag
// `failpoint`, as every release is, its functions are empty, are inlined, and leave nothing of themselves in the program: a test
// looks through the program for what would be there.
//
// Built with the tag, a process does what the file `failpoint` in its working directory says, each line `point action [n]`: the action
// is taken when the point is passed the n-th time since (the first, where nothing is said), and the line is gone then, so that the process
// that comes back goes on. A point may be a pattern (path.Match), and n may be `each`, for every time that it is passed. Actions are
// `kill` (SIGKILL, to itself), `stop` (SIGSTOP, until a test that did something to others meanwhile sends SIGCONT), `error`, and a time, as
// `2s`, to sleep. The environment variable
// A3_FAILPOINT takes one such line for a process that is started by hand.
package failpoint

import "time"

// Here is a place with a name, as `discovery.seal.before-commit`. It answers an error where the test wants one.
func Here(_ string) error { return nil }

// Panic is a place at which what value holds is at hand. It panics with that where the test has a line `point panic`, each time.
func Panic(_ string, _ any) {}

// Duration is d, or what the test says in a line `point d`.
func Duration(_ string, d time.Duration) time.Duration { return d }

// Given is the line of the environment, for a process that starts another with none; empty in a release.
func Given() string { return "" }

// Give is that line in the process that was started.
func Give(_ string) {}
