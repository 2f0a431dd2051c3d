package process

import (
	"regexp"
	"slices"
	"strings"
)

// whyGo is how a Go process begins to say why it ends without being asked to; its stacks and registers follow.
var whyGo = regexp.MustCompile(`^(panic: |fatal error: |runtime: |runtime/cgo: |SIG[A-Z]+: |unexpected fault )`)

// LastWords is what a process said last, of all that it wrote: its last line, or where it printed its stacks, why.
func LastWords(text string) string {
	const reasons = 3
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var why []string
	for _, line := range slices.Backward(lines) {
		if strings.HasPrefix(line, "{") { // an entry of the log: what came before it isn't of this end
			break
		}
		if whyGo.MatchString(line) {
			why = append(why, line)
		}
	}
	if len(why) == 0 {
		return lines[len(lines)-1]
	}
	slices.Reverse(why)
	return strings.Join(why[:min(reasons, len(why))], "; ")
}
