package csv_test

import (
	"errors"
	"testing"

	"buf.build/go/protovalidate"

	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/connectortest"
	"a3os.app/services/discoveryworker/internal/connector/csv"
)

// FuzzUpload gives the reader any bytes: it takes all of them or none, and what it takes fits the proto. The corpus is in testdata.
func FuzzUpload(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		sink := connectortest.NewRecorder()
		next, err := csv.New().Read(t.Context(), source(string(content)), nil, sink)
		if err != nil {
			if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
				t.Fatalf("an upload's fault would be tried again: %v", err)
			}
			if len(sink.Records) > 0 || len(sink.Completed) > 0 {
				t.Fatalf("%d records were taken of an upload that is wrong", len(sink.Records))
			}
			return
		}
		if next != nil || !sink.Completed[csv.Scope] || len(sink.Records) == 0 {
			t.Fatalf("a right upload ended with %q, complete %v, %d records", next, sink.Completed, len(sink.Records))
		}
		for _, r := range sink.Records {
			if err := protovalidate.Validate(r); err != nil {
				t.Fatalf("%v: %v", r, err)
			}
		}
	})
}
