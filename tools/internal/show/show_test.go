package show_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/internal/show"
)

// evil clears the screen, sets its title, moves by a C1 control, turns what follows around, and rings.
const evil = "1.0\x1b[2J\x1b]0;mine\x07\u009b2J\u202e\x7f\U000e0041"

func steers(t *testing.T, what, shown string) {
	t.Helper()
	if i := strings.IndexFunc(shown, func(r rune) bool { return strings.ContainsRune("\x1b\x07\u009b\u202e\x7f\U000e0041\r", r) }); i >= 0 {
		t.Errorf("%s: a terminal is steered by %q", what, shown)
	}
}

func TestNothingThatIsPrintedSteersATerminal(t *testing.T) {
	var all bytes.Buffer
	w := show.Lines(&all)
	// However it comes in pieces, in the middle of a rune too.
	for _, b := range []byte("ok\tdone\n" + evil + "\r\n„Grüße“ ✓ \xff\n") {
		if n, err := w.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	steers(t, "lines", all.String())
	const want = "ok\tdone\n" + `1.0\x1b[2J\x1b]0;mine\x07\u009b2J\u202e\x7f\U000e0041\x0d` + "\n„Grüße“ ✓ \ufffd\n"
	if all.String() != want {
		t.Errorf("%q is shown, want %q", &all, want)
	}
}

func TestJSONForATerminalIsTheSameValue(t *testing.T) {
	m := &registryv1.ComponentReport{Name: "iam", Release: evil}
	var message, value, line bytes.Buffer
	if err := show.Message(&message, m); err != nil {
		t.Fatal(err)
	}
	var back registryv1.ComponentReport
	if err := protojson.Unmarshal(message.Bytes(), &back); err != nil || back.GetRelease() != evil {
		t.Errorf("it is read as %q, %v", back.GetRelease(), err)
	}
	for _, w := range []struct {
		to    *bytes.Buffer
		write error
	}{{&value, show.JSON(&value, evil)}, {&line, show.JSONLine(&line, evil)}} {
		var text string
		if err := json.Unmarshal(w.to.Bytes(), &text); w.write != nil || err != nil || text != evil {
			t.Errorf("it is read as %q, %v %v", text, w.write, err)
		}
		steers(t, "JSON", w.to.String())
	}
	steers(t, "message", message.String())
}
