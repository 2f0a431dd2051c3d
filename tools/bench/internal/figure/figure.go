// Package figure is a figure beside the thing it is compared with: both measured in one run, in turns, so that whatever else the
// machine does meets both. It promises that what couldn't be measured says so and never reads as a success. It relies on its
// callers for measuring the same work on both sides.
package figure

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Rounds is the least number of rounds that a median is taken of.
const Rounds = 10

// Series is one side of a figure over all rounds.
type Series struct {
	// What was measured.
	What string `json:"what"`
	// Median, Min and Max are in the figure's unit.
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Bound is what the ratio, or our own side, must keep to; one of its fields is set.
type Bound struct {
	// AtMost is the greatest ratio allowed; 0 where there is none.
	AtMost float64 `json:"at_most,omitempty"`
	// AtLeast is the least ratio allowed; 0 where there is none.
	AtLeast float64 `json:"at_least,omitempty"`
	// MeasuredAtMost is the greatest median of our own side allowed, in the figure's unit; 0 where there is none.
	MeasuredAtMost float64 `json:"measured_at_most,omitempty"`
}

// Holds says whether a ratio keeps to the bound.
func (b Bound) Holds(ratio float64) bool {
	return (b.AtMost == 0 || ratio <= b.AtMost) && ratio >= b.AtLeast && (b.AtMost != 0 || b.AtLeast != 0)
}

// String is the bound as it is read: `≤ 1.25`.
func (b Bound) String() string {
	if b.MeasuredAtMost != 0 {
		return fmt.Sprintf("itself ≤ %.4g", b.MeasuredAtMost)
	}
	if b.AtMost != 0 {
		return fmt.Sprintf("≤ %.4g", b.AtMost)
	}
	return fmt.Sprintf("≥ %.4g", b.AtLeast)
}

// Figure is one line of the table.
type Figure struct {
	// Name says what is compared.
	Name string `json:"name"`
	// Unit is of both series: `µs`, `MiB`, `rows/s`.
	Unit string `json:"unit"`
	// Measured is ours.
	Measured Series `json:"measured"`
	// Against is what ours is held against.
	Against Series `json:"against"`
	// Ratio is of each round's two values, so that a slow moment of the machine falls on both.
	Ratio Series `json:"ratio"`
	// Rounds is how many there were.
	Rounds int `json:"rounds"`
	// Bound is what the median ratio must keep to.
	Bound Bound `json:"bound"`
	// Holds says whether it does; false where nothing was measured.
	Holds bool `json:"holds"`
	// NotMeasured says why there are no values; empty where there are.
	NotMeasured string `json:"not_measured,omitempty"`
	// Note says under what conditions it was measured.
	Note string `json:"note,omitempty"`
}

// Fill takes the values of both sides, one pair a round, in the figure's unit.
func (f *Figure) Fill(measured, against []float64) error {
	if len(measured) != len(against) || len(measured) < Rounds {
		return fmt.Errorf("%s: %d values beside %d, a figure needs at least %d pairs", f.Name, len(measured), len(against), Rounds)
	}
	ratios := make([]float64, len(measured))
	for i := range measured {
		if against[i] <= 0 {
			return fmt.Errorf("%s: round %d measured %g %s of %s, which can't be", f.Name, i+1, against[i], f.Unit, f.Against.What)
		}
		ratios[i] = measured[i] / against[i]
	}
	f.Measured.take(measured)
	f.Against.take(against)
	f.Ratio.What = f.Measured.What + " ÷ " + f.Against.What
	f.Ratio.take(ratios)
	f.Rounds, f.Holds = len(measured), f.Bound.Holds(f.Ratio.Median)
	if f.Bound.MeasuredAtMost != 0 {
		f.Holds = f.Measured.Median <= f.Bound.MeasuredAtMost
	}
	return nil
}

func (s *Series) take(values []float64) {
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	s.Median, s.Min, s.Max = sorted[mid], sorted[0], sorted[len(sorted)-1]
	if len(sorted)%2 == 0 {
		s.Median = (sorted[mid-1] + sorted[mid]) / 2
	}
}

// Report is what one run of the benchmarks found.
type Report struct {
	// At is when it began.
	At time.Time `json:"at"`
	// Machine says what it ran on.
	Machine string `json:"machine"`
	// Figures are in the order they were measured.
	Figures []Figure `json:"figures"`
}

// WriteJSON writes the report as indented JSON.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tMEDIAN\tMIN – MAX\tROUNDS\tBOUND\tHOLDS")
	for _, f := range r.Figures {
		if f.NotMeasured != "" {
			fmt.Fprintf(t, "%s\tnot measured\t\t\t%s\t%s\n", f.Name, f.Bound, f.NotMeasured)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s – %s\t%d\t%s\t%s\n", f.Name, number(f.Ratio.Median), number(f.Ratio.Min), number(f.Ratio.Max), f.Rounds, f.Bound, yes(f.Holds))
		for _, s := range []Series{f.Measured, f.Against} {
			fmt.Fprintf(t, "  %s\t%s %s\t%s – %s\t\t\t\n", s.What, number(s.Median), f.Unit, number(s.Min), number(s.Max))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Figures {
		if f.Note != "" {
			fmt.Fprintf(w, "\n%s: %s.", f.Name, f.Note)
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

// Missed are the names of measured figures that miss their bound.
func (r Report) Missed() []string {
	var names []string
	for _, f := range r.Figures {
		if f.NotMeasured == "" && !f.Holds {
			is := f.Ratio.Median
			if f.Bound.MeasuredAtMost != 0 {
				is = f.Measured.Median
			}
			names = append(names, fmt.Sprintf("%s is %s, the bound is %s", f.Name, number(is), f.Bound))
		}
	}
	return names
}

func yes(holds bool) string {
	if holds {
		return "yes"
	}
	return "NO"
}

// number writes four digits that count, and whole numbers whole.
func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	case v >= 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
