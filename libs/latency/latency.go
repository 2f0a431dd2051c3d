// Package latency counts how long things took, in buckets that are the same in every process and release, so that counts of several
// can be added and those of one process subtracted. It promises that a count costs one atomic addition and no memory.
package latency

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// bounds are the upper ends of all buckets but the last, which has none. They are on the wire: a change of them is a change of
// a3os.set.v1.Figures.
var bounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// Bounds are the upper ends of the buckets, in seconds, but for the last bucket, which has none.
func Bounds() []float64 { return slices.Clone(bounds[:]) }

// Buckets is how many there are.
const Buckets = len(bounds) + 1

// Counter counts. Its zero value is ready.
type Counter struct{ counts [Buckets]atomic.Int64 }

// Add counts one that took d.
func (c *Counter) Add(d time.Duration) {
	s := d.Seconds()
	i := 0
	for i < len(bounds) && s > bounds[i] {
		i++
	}
	c.counts[i].Add(1)
}

// Counts are the counts by bucket.
func (c *Counter) Counts() []int64 {
	out := make([]int64, Buckets)
	for i := range c.counts {
		out[i] = c.counts[i].Load()
	}
	return out
}

// Quantile is the q-th quantile, 0 < q ≤ 1, of what was counted, in seconds; 0 where nothing was. Within a bucket it goes in proportion,
// as Prometheus' histogram_quantile does, and what lies above all bounds counts as the highest of them.
func Quantile(counts []int64, q float64) float64 {
	var total int64
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := q * float64(total)
	var below int64
	for i, n := range counts {
		if n == 0 || float64(below+n) < rank {
			below += n
			continue
		}
		if i >= len(bounds) {
			break
		}
		low := 0.0
		if i > 0 {
			low = bounds[i-1]
		}
		return low + (bounds[i]-low)*math.Max(0, rank-float64(below))/float64(n)
	}
	return bounds[len(bounds)-1]
}
