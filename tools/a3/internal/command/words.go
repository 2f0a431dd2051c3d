package command

import (
	"fmt"
	"strings"

	"a3os.app/libs/fault"
)

// role reads a role's word as an enum with a prefix: `member` is WORKSPACE_ROLE_MEMBER.
func role(word, prefix string, values map[string]int32) (int32, error) {
	if n, ok := values[prefix+strings.ToUpper(word)]; ok && n != 0 {
		return n, nil
	}
	return 0, usage(fault.New(fault.InvalidArgument, "%q is no role: use %s", word, strings.Join(words(prefix, values), ", ")))
}

// words are an enum's values as people say them, in order, without the unspecified one.
func words(prefix string, values map[string]int32) []string {
	out := make([]string, len(values)-1)
	for name, n := range values {
		if n > 0 && int(n) <= len(out) {
			out[n-1] = strings.ToLower(strings.TrimPrefix(name, prefix))
		}
	}
	return out
}

// word is an enum's value as people say it; empty for the unspecified one.
func word(value fmt.Stringer, prefix string) string {
	w := strings.ToLower(strings.TrimPrefix(value.String(), prefix))
	if w == "unspecified" {
		return ""
	}
	return w
}
