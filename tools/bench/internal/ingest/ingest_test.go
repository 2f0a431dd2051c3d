package ingest

import (
	"slices"
	"strings"
	"testing"
)

func TestBenchmarkLinesAreReadAndOthersAreNot(t *testing.T) {
	const out = `goos: linux
BenchmarkIngestToPublished-2   	       1	9000000000 ns/op	    900000 copy-rows/s	    400000 rows/s
BenchmarkIngestToPublished-2   	       1	8000000000 ns/op	    800000 copy-rows/s	    300000 rows/s	       12 B/op
PASS
ok  	a3os.app/services/discovery/internal/runs	17.1s
`
	measured, against, err := parse([]byte(out))
	if err != nil || !slices.Equal(measured, []float64{400000, 300000}) || !slices.Equal(against, []float64{900000, 800000}) {
		t.Fatalf("read %v beside %v, %v", measured, against, err)
	}
}

func TestBenchmarkWithoutComparisonIsRefused(t *testing.T) {
	_, _, err := parse([]byte("BenchmarkIngestToPublished-2 1 9000 ns/op 400000 rows/s\n"))
	if err == nil || !strings.Contains(err.Error(), rawCopy) {
		t.Fatalf("want an error that names what is missing, got %v", err)
	}
}
