package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed attacks.tsv faults.tsv
var files embed.FS

// row is one line of a catalogue: what is tried, and what must hold.
type row struct {
	Name  string `json:"row"`
	Tried string `json:"tried"`
	Must  string `json:"must"`
	// Later names what brings the row's part, where it doesn't exist yet, or what of the row it still lacks. Empty: it must be played.
	Later string `json:"later,omitempty"`
}

type rows []row

// catalogue reads the rows of attacks or faults.
func catalogue(name string) (rows, error) {
	raw, err := files.ReadFile(name + ".tsv")
	if err != nil {
		return nil, errUsage
	}
	var out rows
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		const columns = 4
		if len(cells) != columns || cells[0] == "" || cells[1] == "" || cells[2] == "" {
			return nil, fmt.Errorf("%s.tsv: a line is row, tried, must and later with tabs between them, not %q", name, line)
		}
		r := row{Name: cells[0], Tried: cells[1], Must: cells[2], Later: cells[3]}
		if out.has(r.Name) {
			return nil, fmt.Errorf("%s.tsv names row %s twice", name, r.Name)
		}
		out = append(out, r)
	}
	return out, nil
}

func (c rows) has(name string) bool {
	return slices.ContainsFunc(c, func(r row) bool { return r.Name == name })
}
