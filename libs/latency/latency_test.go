package latency_test

import (
	"math"
	"testing"
	"time"

	"a3os.app/libs/latency"
)

func TestEachIsCountedInTheBucketThatEndsAboveIt(t *testing.T) {
	var c latency.Counter
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Second, time.Minute} {
		c.Add(d)
	}
	counts := c.Counts()
	if len(counts) != latency.Buckets || len(latency.Bounds()) != latency.Buckets-1 {
		t.Fatalf("%d counts", len(counts))
	}
	for i, n := range counts {
		want := map[int]int64{0: 2, 1: 1, 9: 1, latency.Buckets - 1: 1}[i]
		if n != want {
			t.Errorf("bucket %d counts %d, want %d", i, n, want)
		}
	}
}

func TestQuantileLiesInItsBucket(t *testing.T) {
	ninetyNineAndOne := make([]int64, latency.Buckets)
	ninetyNineAndOne[3], ninetyNineAndOne[8] = 99, 1 // up to 10 ms, and between 250 and 500 ms
	highest := make([]int64, latency.Buckets)
	highest[latency.Buckets-1] = 5
	for _, c := range []struct {
		name   string
		counts []int64
		q      float64
		want   float64
	}{
		{"nothing", make([]int64, latency.Buckets), 0.99, 0},
		{"nothing at all", nil, 0.99, 0},
		{"the 99th of 100", ninetyNineAndOne, 0.99, 0.01},
		{"the last of 100", ninetyNineAndOne, 1, 0.5},
		{"the middle", ninetyNineAndOne, 0.495, 0.0075},
		{"above all", highest, 0.5, 30},
		// A newer process may count in more buckets than this one knows.
		{"more buckets than known", append(make([]int64, latency.Buckets), 1), 0.5, 30},
	} {
		if got := latency.Quantile(c.counts, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
