// Package usage is a set's report of how much it uses: a few lines of text that the tenant reads before they are sent, signed with the
// key of the tenant's log. It promises that the text holds numbers and what they are of, and nothing that was counted; and that a
// report which opens was signed by the log of the tenant that it names. The form is a signed note (C2SP signed-note).
package usage

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
)

// Report is how much a set uses.
type Report struct {
	// Plane and Tenant of the set.
	Plane  string
	Tenant id.Tenant
	// Serial of the licence that the set holds; 0 for none.
	Serial int64
	// Since and Until bound what happened; what is there is counted at Until.
	Since, Until time.Time
	// Counts by name: `seats`.
	Counts map[string]int64
}

// mostCounts bounds a report.
const mostCounts = 64

var name = regexp.MustCompile(`^[a-z][a-z0-9_]{0,38}$`)

// origin is a report's first line. No checkpoint begins with it, so that neither can be taken for the other.
func origin(plane string, tenant id.Tenant) string {
	return "a3os.app/" + plane + "/" + tenant.String() + "/usage"
}

// Text is the report as it is signed and shown.
func (r Report) Text() (string, error) {
	if r.Tenant.IsZero() || r.Plane == "" || len(r.Counts) > mostCounts {
		return "", errors.New("a report of use is of one tenant's set, and has a few numbers")
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s\nlicence %d\nsince %s\nuntil %s\n", origin(r.Plane, r.Tenant), r.Serial, instant(r.Since), instant(r.Until))
	for _, n := range slices.Sorted(maps.Keys(r.Counts)) {
		if !name.MatchString(n) || r.Counts[n] < 0 {
			return "", fmt.Errorf("%q is %d: that is nothing that a report of use says", n, r.Counts[n])
		}
		fmt.Fprintf(&out, "%s %d\n", n, r.Counts[n])
	}
	return out.String(), nil
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Sign makes the signed note of a report.
func Sign(r Report, s *tlog.Signer) (string, error) {
	text, err := r.Text()
	if err != nil {
		return "", err
	}
	return s.SignText(text)
}

// Open verifies a note with the key of the tenant's log, and reads the report.
func Open(plane string, tenant id.Tenant, note string, v *tlog.Verifier) (Report, error) {
	if v.Origin() != tlog.Origin(plane, tenant) {
		return Report{}, fmt.Errorf("the key is that of the log %.100q, and the report is of %s", v.Origin(), origin(plane, tenant))
	}
	text, err := v.OpenText(note)
	if err != nil {
		return Report{}, err
	}
	return parse(plane, tenant, text)
}

// parse reads what Text wrote, and nothing that is written in another way.
func parse(plane string, tenant id.Tenant, text string) (Report, error) {
	bad := fmt.Errorf("it has not the form of a report of use of %s", origin(plane, tenant))
	r := Report{Plane: plane, Tenant: tenant, Counts: map[string]int64{}}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		key, value, _ := strings.Cut(line, " ")
		var err error
		switch {
		case i == 0:
		case i == 1 && key == "licence":
			r.Serial, err = strconv.ParseInt(value, 10, 64)
		case i == 2 && key == "since":
			r.Since, err = time.Parse(time.RFC3339, value)
		case i == 3 && key == "until":
			r.Until, err = time.Parse(time.RFC3339, value)
		default:
			r.Counts[key], err = strconv.ParseInt(value, 10, 64)
		}
		if err != nil {
			return Report{}, bad
		}
	}
	again, err := r.Text()
	if err != nil || again != text {
		return Report{}, bad
	}
	return r, nil
}
