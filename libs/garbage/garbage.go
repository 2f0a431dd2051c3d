// Package garbage says how often a process collects its garbage. One that starts, or that ends soon, makes little that could be collected: what it
// reads and builds it keeps for as long as it lives. What an operator chose, by GOGC, stands.
package garbage

import (
	"os"
	"runtime/debug"
)

const (
	// seldom is how much garbage is made beside what is held, in percent, before it is collected: most starts, and most commands, end before.
	seldom = 400
	// asAlways is Go's own choice.
	asAlways = 100
)

// Seldom has it collected seldom: for a process that starts, or a command.
func Seldom() { collect(seldom) }

// AsAlways has it collected as Go does by itself: for a process that serves from now on.
func AsAlways() { collect(asAlways) }

func collect(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
