package unix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sudoPolicy is what cvtsudoers -f json answers.
type sudoPolicy struct {
	Defaults       []sudoDefaults
	UserAliases    map[string][]sudoMember `json:"User_Aliases"`
	RunasAliases   map[string][]sudoMember `json:"Runas_Aliases"`
	HostAliases    map[string][]sudoMember `json:"Host_Aliases"`
	CommandAliases map[string][]sudoMember `json:"Command_Aliases"`
	Specs          []*sudoSpec             `json:"User_Specs"`
}

type sudoDefaults struct {
	Binding []sudoMember
	Options []map[string]any
}

// sudoSpec is one rule: who, where, and what as whom.
type sudoSpec struct {
	Users    []sudoMember      `json:"User_List"`
	Hosts    []sudoMember      `json:"Host_List"`
	Commands []*sudoCommandSet `json:"Cmnd_Specs"`
	// line is the index of the line it stands on, -1 where that isn't known.
	line int
}

type sudoCommandSet struct {
	RunasUsers  []sudoMember `json:"runasusers"`
	RunasGroups []sudoMember `json:"runasgroups"`
	Options     []map[string]any
	Commands    []sudoMember
}

// option is an option's value, if the set has it.
func (s *sudoCommandSet) option(name string) (any, bool) {
	for _, o := range s.Options {
		if v, ok := o[name]; ok {
			return v, true
		}
	}
	return nil, false
}

// sudoMember is an item of a list: a kind (`username`, `usergroup`, `cmndalias`, …), its value, and whether `!` stands before it.
type sudoMember struct {
	kind, value string
	negated     bool
	// digests are `sha224:…` and so on, of commands; cvtsudoers repeats a key where there are several.
	digests []string
}

// UnmarshalJSON implements json.Unmarshaler; it keeps keys that occur twice.
func (m *sudoMember) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("an item of a list is no object: %w", err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		value, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		switch v := value.(type) {
		case bool:
			m.negated = v
		case json.Number:
			m.kind, m.value = name, v.String()
		case string:
			if strings.HasPrefix(name, "sha") {
				m.digests = append(m.digests, name+":"+v)
				continue
			}
			m.kind, m.value = name, v
		default:
			return fmt.Errorf("%s has a value of an unknown kind", name)
		}
	}
	return nil
}

var (
	// cvtsudoers up to 1.9.13 at least writes these pairs into arrays bare, which isn't JSON.
	barePair    = regexp.MustCompile(`(?m)^(\s*)("(?:runchroot|runcwd|role|type|apparmor_profile)": "(?:[^"\\]|\\.)*")(,?)$`)
	syntaxError = regexp.MustCompile(`(?m)^stdin:(\d+):\d+: (.*)$`)
)

// parseSudo has sudo's own parser read the lines. A line that it can't read is named as a gap and left out, as sudo does.
func parseSudo(ctx context.Context, g *graph, lines []sudoLine) (*sudoPolicy, error) {
	for range 20 {
		out, complaints, err := run(ctx, text(lines, false), "cvtsudoers", "-c", "", "-f", "json", "-")
		switch {
		case errors.Is(err, exec.ErrNotFound):
			g.gap(ScopeSudoers, "cvtsudoers is not installed, it comes with sudo 1.8.22: sudo rules were not read")
			return nil, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			policy, err := decodePolicy(out)
			if err != nil {
				g.gap(ScopeSudoers, "cvtsudoers: "+err.Error())
				return nil, nil //nolint:nilerr // it is a gap: the rest of the machine can be read
			}
			return policy, locate(ctx, lines, policy)
		}
		bad := syntaxError.FindAllSubmatch(complaints, -1)
		if len(bad) == 0 {
			g.gap(ScopeSudoers, "sudo rules can't be read: "+err.Error())
			return nil, nil
		}
		for _, b := range bad {
			number, err := strconv.Atoi(string(b[1]))
			if err != nil || number < 1 || number > len(lines) {
				continue
			}
			g.gap(ScopeSudoers, fmt.Sprintf("%s: %s", lines[number-1].at(), b[2]))
			blank(lines, number-1)
		}
	}
	g.gap(ScopeSudoers, "sudo rules have too many errors to be read")
	return nil, nil
}

// blank empties a line and those that it continues and that continue it.
func blank(lines []sudoLine, i int) {
	for i > 0 && !lines[i].first {
		i--
	}
	lines[i].text = ""
	for i++; i < len(lines) && !lines[i].first; i++ {
		lines[i].text = ""
	}
}

func decodePolicy(out []byte) (*sudoPolicy, error) {
	policy := new(sudoPolicy)
	if len(bytes.TrimSpace(out)) == 0 {
		return policy, nil
	}
	if err := json.Unmarshal(barePair.ReplaceAll(out, []byte("$1{ $2 }$3")), policy); err != nil {
		return nil, fmt.Errorf("its answer can't be read: %w", err)
	}
	for _, s := range policy.Specs {
		if s == nil || slices.Contains(s.Commands, nil) {
			return nil, errors.New("its answer can't be read: there is a rule that says nothing")
		}
		s.line = -1
	}
	return policy, nil
}

// locate finds out on which line each rule stands, by reading the lines once more with marks between them. The marks only ever
// name lines: where they would change the rules, they are not used.
func locate(ctx context.Context, lines []sudoLine, policy *sudoPolicy) error {
	out, _, err := run(ctx, text(lines, true), "cvtsudoers", "-c", "", "-f", "json", "-")
	if err != nil {
		// Without marks the rules are known, only not their lines.
		return ctx.Err() //nolint:nilerr // as said
	}
	marked, err := decodePolicy(out)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	line := -1
	var at []int
	var specs []*sudoSpec
	for _, s := range marked.Specs {
		if len(s.Users) == 1 && s.Users[0].kind == "username" {
			if n, ok := strings.CutPrefix(s.Users[0].value, markPrefix); ok {
				if line, err = strconv.Atoi(n); err != nil {
					return nil //nolint:nilerr // as above
				}
				continue
			}
		}
		at, specs = append(at, line), append(specs, s)
	}
	if !sameRules(policy.Specs, specs) {
		return nil
	}
	for i, s := range policy.Specs {
		s.line = at[i]
	}
	return nil
}

func sameRules(a, b []*sudoSpec) bool {
	x, errX := json.Marshal(describe(a))
	y, errY := json.Marshal(describe(b))
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// describe is rules as plain text.
func describe(specs []*sudoSpec) []string {
	var out []string
	for _, s := range specs {
		var b strings.Builder
		fmt.Fprint(&b, s.Users, s.Hosts)
		for _, c := range s.Commands {
			fmt.Fprint(&b, *c)
		}
		out = append(out, b.String())
	}
	return out
}
