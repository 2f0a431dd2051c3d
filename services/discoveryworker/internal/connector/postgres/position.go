package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"a3os.app/services/discoveryworker/internal/connector"
)

// position is where a slice goes on: in a section of a database, or with no database of what belongs to the whole server, after an
// oid. The checkpoint is its JSON.
type position struct {
	Database string `json:"database,omitempty"`
	Section  string `json:"section,omitempty"`
	After    uint32 `json:"after,omitempty"`
	// Gap says that something of the scope could not be read in an earlier slice.
	Gap bool `json:"gap,omitempty"`
}

func parsePosition(checkpoint []byte) (position, error) {
	var p position
	if checkpoint == nil {
		return p, nil
	}
	d := json.NewDecoder(bytes.NewReader(checkpoint))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return position{}, connector.Permanent(fmt.Errorf("the checkpoint is not one of this connector (%w): start a new run", err))
	}
	return p, nil
}

// checkpoint is nil for the zero position: there is nothing to go on from.
func (p position) checkpoint() []byte {
	if p == (position{}) {
		return nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil // strings and numbers always marshal
	}
	return b
}

// in is the index of the position's section.
func (p position) in(sections []section) (int, error) {
	if p.Section == "" {
		return 0, nil
	}
	i := slices.IndexFunc(sections, func(s section) bool { return s.name == p.Section })
	if i < 0 {
		return 0, connector.Permanent(fmt.Errorf("the checkpoint names %q, which this version does not read: start a new run", p.Section))
	}
	return i, nil
}
