package gobench

import (
	"slices"
	"strings"
	"testing"
)

var spec = Spec{Name: "BenchmarkIngestToPublished", Ours: "grants/s", Theirs: "bare-grants/s"}

func TestBenchmarkLinesAreReadAndOthersAreNot(t *testing.T) {
	const out = `goos: linux
BenchmarkIngestToPublished-2   	       1	9000000000 ns/op	    900000 bare-grants/s	    400000 grants/s	         0.4444 ratio
BenchmarkIngestToPublished-2   	2026/11/23 02:19:48 INFO migrated schemas="a3 audit iam"
       1	8000000000 ns/op	    800000 bare-grants/s	    300000 grants/s	         0.3750 ratio
PASS
ok  	a3os.app/services/discovery/internal/runs	17.1s
`
	measured, against, err := spec.parse([]byte(out))
	if err != nil || !slices.Equal(measured, []float64{400000, 300000}) || !slices.Equal(against, []float64{900000, 800000}) {
		t.Fatalf("read %v beside %v, %v", measured, against, err)
	}
}

func TestBenchmarkWithoutComparisonIsRefused(t *testing.T) {
	_, _, err := spec.parse([]byte("BenchmarkIngestToPublished-2 1 9000 ns/op 400000 grants/s\n"))
	if err == nil || !strings.Contains(err.Error(), spec.Theirs) {
		t.Fatalf("want an error that names what is missing, got %v", err)
	}
}
