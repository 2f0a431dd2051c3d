// Command bufcheck holds the compiled APIs against what every one of ours promises (see libs/apilint). It prints a line for each
// fault and fails when there is one.
package main

import (
	"fmt"
	"io"
	"os"

	"a3os.app/libs/apilint"
)

func main() {
	if faults := report(os.Stderr); faults > 0 {
		fmt.Fprintf(os.Stderr, "bufcheck: %d faults\n", faults)
		os.Exit(1)
	}
}

// report writes the faults of all methods of ours and answers how many there are.
func report(w io.Writer) int {
	methods, faults := apilint.Ours(), 0
	for _, c := range apilint.Checks() {
		for _, fault := range c.Of(methods) {
			fmt.Fprintf(w, "%s (%s)\n", fault, c.Name)
			faults++
		}
	}
	return faults
}
