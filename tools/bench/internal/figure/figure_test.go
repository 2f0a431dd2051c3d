package figure_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"a3os.app/tools/bench/internal/figure"
)

func filled(t *testing.T, measured, against []float64, bound figure.Bound) figure.Figure {
	t.Helper()
	f := figure.Figure{Name: "cost", Unit: "µs", Measured: figure.Series{What: "ours"}, Against: figure.Series{What: "theirs"}, Bound: bound}
	if err := f.Fill(measured, against); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRatioIsTheMedianOfRoundsAndNotOfSides(t *testing.T) {
	// The machine was ten times slower in half of the rounds: on both sides alike, so the ratio stands.
	against := []float64{1, 10, 1, 10, 1, 10, 1, 10, 1, 10}
	measured := make([]float64, len(against))
	for i, v := range against {
		measured[i] = 1.2 * v
	}
	f := filled(t, measured, against, figure.Bound{AtMost: 1.25})
	if f.Ratio.Median < 1.199 || f.Ratio.Max > 1.201 || !f.Holds || f.Measured.Max != 12 {
		t.Fatalf("figure is %+v", f)
	}
}

func TestFewRoundsAndImpossibleValuesAreRefused(t *testing.T) {
	for name, sides := range map[string][2][]float64{
		"nine rounds": {slices.Repeat([]float64{1}, 9), slices.Repeat([]float64{1}, 9)},
		"no pairs":    {slices.Repeat([]float64{1}, 11), slices.Repeat([]float64{1}, 10)},
		"zero":        {slices.Repeat([]float64{1}, 10), slices.Repeat([]float64{0}, 10)},
	} {
		var f figure.Figure
		if err := f.Fill(sides[0], sides[1]); err == nil || f.Holds {
			t.Errorf("%s: was taken: %+v", name, f)
		}
	}
}

func TestBoundsHoldToTheirSide(t *testing.T) {
	ten := slices.Repeat([]float64{1}, 10)
	three := slices.Repeat([]float64{3}, 10)
	for _, c := range []struct {
		bound figure.Bound
		holds bool
	}{
		{figure.Bound{AtMost: 4}, true},
		{figure.Bound{AtMost: 2.9}, false},
		{figure.Bound{AtLeast: 0.3}, true},
		{figure.Bound{AtLeast: 3.1}, false},
		{figure.Bound{}, false},
	} {
		if f := filled(t, three, ten, c.bound); f.Holds != c.holds {
			t.Errorf("ratio 3, bound %s: holds is %t", c.bound, f.Holds)
		}
	}
}

func TestWhatWasNotMeasuredIsNoSuccess(t *testing.T) {
	ten := slices.Repeat([]float64{1}, 10)
	r := figure.Report{Figures: []figure.Figure{
		{Name: "memory", Bound: figure.Bound{AtMost: 4}, NotMeasured: "no plane is up"},
		filled(t, slices.Repeat([]float64{2}, 10), ten, figure.Bound{AtMost: 1.25}),
	}}
	var table, raw bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	if s := table.String(); !strings.Contains(s, "not measured") || !strings.Contains(s, "no plane is up") || strings.Contains(s, "yes") {
		t.Errorf("table is\n%s", s)
	}
	if missed := r.Missed(); len(missed) != 1 || !strings.Contains(missed[0], "2.000") {
		t.Errorf("missed is %q", missed)
	}
	if err := r.WriteJSON(&raw); err != nil {
		t.Fatal(err)
	}
	var back figure.Report
	if err := json.Unmarshal(raw.Bytes(), &back); err != nil || back.Figures[0].Holds || back.Figures[0].NotMeasured == "" {
		t.Errorf("JSON reads back as %+v, %v", back, err)
	}
}

func TestBoundOfOurOwnSideIsHeldWhateverTheRatio(t *testing.T) {
	against := slices.Repeat([]float64{1}, 10)
	for value, holds := range map[float64]bool{999: true, 1000: true, 1001: false} {
		f := filled(t, slices.Repeat([]float64{value}, 10), against, figure.Bound{MeasuredAtMost: 1000})
		if f.Holds != holds || f.Bound.String() != "itself ≤ 1000" {
			t.Errorf("%g: %+v", value, f)
		}
		if missed := (figure.Report{Figures: []figure.Figure{f}}).Missed(); (len(missed) == 0) != holds {
			t.Errorf("%g: missed is %q", value, missed)
		}
	}
}
