package command

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/standing"
	"a3os.app/tools/internal/show"
)

// A rate is told of a window that has one: two reports of a new set lie milliseconds apart.
func TestRateOfAMomentIsNotTold(t *testing.T) {
	const column = 6
	for seconds, want := range map[float64]string{0.02: "-", rateFrom - 0.1: "-", 30: "40.0"} {
		if got := row(standing.Tenant{Figures: &standing.Figures{Seconds: seconds, Requests: 20}}, time.Now())[column]; got != want {
			t.Errorf("20 requests in %g s are shown as %s a minute, want %s", seconds, got, want)
		}
	}
}

// A script that pages somebody by the exit pages them for what could not be seen too, and not for what the platform can never tell.
func TestExitTellsOfTroubleAndOfWhatCouldNotBeSeen(t *testing.T) {
	of := func(s standing.Severity) []standing.Finding { return []standing.Finding{{Severity: s}} }
	for name, c := range map[string]struct {
		page standing.Fleet
		want error
	}{
		"all is well":                    {standing.Fleet{Tenants: []standing.Tenant{{}}}, nil},
		"something to look at":           {standing.Fleet{Findings: of(standing.Warning), Tenants: []standing.Tenant{{Severity: standing.Warning}}}, nil},
		"what the platform can't tell":   {standing.Fleet{Beyond: []string{"platform aws can't be asked what runs"}}, nil},
		"a tenant in trouble":            {standing.Fleet{Tenants: []standing.Tenant{{}, {Severity: standing.Critical}}}, errTrouble},
		"a plane in trouble":             {standing.Fleet{Findings: of(standing.Critical)}, errTrouble},
		"something that is no tenant's":  {standing.Fleet{Strays: of(standing.Critical)}, errTrouble},
		"nothing but what was not seen":  {standing.Fleet{Blind: []string{"the backups could not be read"}}, errBlind},
		"trouble, and what was not seen": {standing.Fleet{Blind: []string{"the backups could not be read"}, Findings: of(standing.Critical)}, errTrouble},
	} {
		if got := trouble(c.page); !errors.Is(got, c.want) {
			t.Errorf("%s: it ends with %v, want %v", name, got, c.want)
		}
	}
}

// What nobody could ask is not shown as none.
func TestBacklogThatIsNotKnownIsNotTold(t *testing.T) {
	const column = 9
	for want, said := range map[string]standing.Tenant{"-": {}, "0": {DatabaseBytes: 9 << 20}, "3": {AuditBacklog: 3}} {
		if got := row(said, time.Now())[column]; got != want {
			t.Errorf("of %+v the backlog is shown as %s, want %s", said, got, want)
		}
	}
}

// A set that was taken over says what it likes in its reports: an operator reads it, and their terminal does nothing of it.
func TestWhatASetReportsDoesNotSteerTheOperatorsTerminal(t *testing.T) {
	const words = "1.0\x1b[2J\x1b]0;mine\x07\nfleet: all is well"
	var out, errOut bytes.Buffer
	a := &app{out: show.Lines(&out), errOut: show.Lines(&errOut), raw: &out, format: "table"}
	err := errors.Join(
		a.table([]string{"COMPONENT", "RELEASE"}, [][]string{{"iam", words}}),
		a.findings("acme", []standing.Finding{{Severity: standing.Critical, Reason: "iam runs " + words, Next: "fleet repair " + words}}),
		a.rollout(&registryv1.Rollout{Detail: "acme failed: " + words, WaitsFor: words}),
		a.isolationTable(&isolation.Report{Results: []*isolation.Result{{Outcome: isolation.Hole, Answer: words, ControlAnswer: words}}}, "", "", ""),
		a.json(&registryv1.ComponentReport{Release: words}), a.page(standing.Fleet{Blind: []string{words}}, nil, false))
	if err != nil {
		t.Fatal(err)
	}
	reporter{a.errOut}.Note(words)
	for what, text := range map[string]string{"the answer": out.String(), "a note": errOut.String()} {
		if strings.ContainsAny(text, "\x1b\x07") || !strings.Contains(text, `\x1b[2J`) {
			t.Errorf("%s is %q", what, text)
		}
	}
	if strings.Contains(out.String(), "\nfleet: all is well") {
		t.Errorf("a report makes lines of its own: %s", &out)
	}
}

// The first line is what most people read: it doesn't say that all is well where the plane itself is in trouble, nor of tenants of whom nothing is known.
func TestFirstLineTellsOfThePlaneToo(t *testing.T) {
	of := func(s standing.Severity) []standing.Finding { return []standing.Finding{{Severity: s}} }
	for want, f := range map[string]standing.Fleet{
		": 1 tenant: 0 in trouble, 0 to look at, 1 well":                                       {Tenants: []standing.Tenant{{}}},
		": the plane itself is in trouble, 1 tenant: 0 in trouble, 0 to look at, 1 well":       {Tenants: []standing.Tenant{{}}, Findings: of(standing.Critical)},
		": the plane itself is to be looked at, 0 tenants: 0 in trouble, 0 to look at, 0 well": {Findings: of(standing.Warning)},
		": 2 tenants: 1 in trouble, 0 to look at, 0 well, 1 not known":                         {Tenants: []standing.Tenant{{State: standing.Unknown}, {State: standing.Unknown, Severity: standing.Critical}}},
	} {
		if got := headline(f); !strings.HasSuffix(got, want) {
			t.Errorf("%q, want %q at its end", got, want)
		}
	}
}
