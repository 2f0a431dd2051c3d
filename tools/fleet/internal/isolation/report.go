package isolation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Outcome is what an attempt proves.
type Outcome string

// The outcomes.
const (
	// Refused is an attempt that was refused, at a door that opens with the right credential.
	Refused Outcome = "refused"
	// Hole is an attempt that worked.
	Hole Outcome = "hole"
	// Unproven is a refusal without a control that worked, or no clear answer at all.
	Unproven Outcome = "unproven"
)

// Result is one attempt with its control.
type Result struct {
	Outcome Outcome `json:"outcome"`
	Wall    string  `json:"wall"`
	// From is who tried, At what was tried, Attempt how, and Answer what it said.
	From    string `json:"from"`
	At      string `json:"at"`
	Attempt string `json:"attempt"`
	Answer  string `json:"answer"`
	// Control is the right credential, and ControlAnswer what the same door said to it.
	Control       string `json:"control"`
	ControlAnswer string `json:"control_answer"`
}

// Tenant is one whose set was tried.
type Tenant struct {
	ID         string   `json:"id"`
	Slug       string   `json:"slug"`
	Components []string `json:"components"`
}

// WallSummary counts the attempts at one wall.
type WallSummary struct {
	Wall     string `json:"wall"`
	Attempts int    `json:"attempts"`
	Refused  int    `json:"refused"`
	Holes    int    `json:"holes"`
	Unproven int    `json:"unproven"`
}

// Report is what came of all attempts.
type Report struct {
	// Form of this report.
	Form    string    `json:"form"`
	Plane   string    `json:"plane"`
	Release string    `json:"release"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Tenants []Tenant  `json:"tenants"`
	// Gaps are what could not be tried here, or what this platform does not separate.
	Gaps    []string      `json:"gaps"`
	Walls   []WallSummary `json:"walls"`
	Results []*Result     `json:"results"`
}

// form changes when a reader of an earlier one would misread the next.
const form = "a3os.app/isolation/v1"

func newReport(w *World, began time.Time) *Report {
	r := &Report{Form: form, Plane: w.Plane, Release: w.Release, Began: began.UTC().Truncate(time.Millisecond), Gaps: slices.Clone(w.Gaps)}
	if r.Gaps == nil {
		r.Gaps = []string{}
	}
	if len(w.Sets) == 1 {
		r.Gaps = append(r.Gaps, "one tenant alone was tried, so nothing was tried between tenants")
	}
	alike := map[string]bool{}
	for _, s := range w.Sets {
		t := Tenant{ID: s.Tenant.String(), Slug: s.Slug, Components: []string{}}
		for _, c := range s.Components {
			t.Components = append(t.Components, c.Name)
			if !separated(c) {
				alike[s.Slug] = true
			}
		}
		r.Tenants = append(r.Tenants, t)
		if s.Token == nil {
			r.Gaps = append(r.Gaps, fmt.Sprintf("nobody of %s is signed in from this machine, so no user's token was tried from or at it: sign in with a3 login, under the profile %s-admin", s.Slug, s.Slug))
		}
	}
	if names := untried(); len(names) > 0 {
		r.Gaps = append(r.Gaps, "these can't be asked without being done, so siblings didn't try them: "+strings.Join(names, ", "))
	}
	if len(alike) > 0 {
		r.Gaps = append(r.Gaps, "the processes of "+strings.Join(slices.Sorted(maps.Keys(alike)), ", ")+
			" run as the user who runs this, so files are no wall between them: only their modes were looked at")
	}
	return r
}

// finish counts the results: what is wrong first.
func (r *Report) finish(results []*Result, ended time.Time) {
	r.Ended = ended.UTC().Truncate(time.Millisecond)
	r.Results = slices.DeleteFunc(results, func(x *Result) bool { return x == nil })
	for _, x := range r.Results {
		i := slices.IndexFunc(r.Walls, func(s WallSummary) bool { return s.Wall == x.Wall })
		if i < 0 {
			r.Walls = append(r.Walls, WallSummary{Wall: x.Wall})
			i = len(r.Walls) - 1
		}
		s := &r.Walls[i]
		s.Attempts++
		switch x.Outcome {
		case Refused:
			s.Refused++
		case Hole:
			s.Holes++
		case Unproven:
			s.Unproven++
		}
	}
	rank := map[Outcome]int{Hole: 0, Unproven: 1, Refused: 2}
	slices.SortStableFunc(r.Results, func(a, b *Result) int { return rank[a.Outcome] - rank[b.Outcome] })
}

// Count is how many attempts ended in an outcome.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, x := range r.Results {
		if x.Outcome == o {
			n++
		}
	}
	return n
}

// Held says that everything was refused, each beside a control that worked.
func (r *Report) Held() bool { return len(r.Results) > 0 && r.Count(Refused) == len(r.Results) }

// Verdict is the report in one sentence.
func (r *Report) Verdict() string {
	holes, unproven := r.Count(Hole), r.Count(Unproven)
	switch {
	case len(r.Results) == 0:
		return "Nothing was tried."
	case holes > 0:
		return fmt.Sprintf("NOT ISOLATED: %d of %d attempts worked.", holes, len(r.Results))
	case unproven > 0:
		return fmt.Sprintf("NOT PROVEN: %d of %d attempts have no clear refusal beside a control that works.", unproven, len(r.Results))
	}
	return fmt.Sprintf("Isolated: all %d attempts were refused, each at a door that opens with the right credential.", len(r.Results))
}

// Failures are the results that stand against the verdict.
func (r *Report) Failures() []*Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(x *Result) bool { return x.Outcome == Refused })
}

// WallResults are the attempts at one wall.
type WallResults struct {
	Wall    string
	Results []*Result
}

// ByWall are all results, in the order of the summary.
func (r *Report) ByWall() []WallResults {
	var out []WallResults
	for _, w := range r.Walls {
		one := WallResults{Wall: w.Wall}
		for _, x := range r.Results {
			if x.Wall == w.Wall {
				one.Results = append(one.Results, x)
			}
		}
		out = append(out, one)
	}
	return out
}
