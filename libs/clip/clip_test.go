package clip_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"a3os.app/libs/clip"
)

// Whatever the text and the room, what is answered fits, is UTF-8, loses no more than it has to, and stays as it is when it is cut once more.
func TestWhatIsClippedFitsAndIsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("aä€𝄞")), 0, 300, -1), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s")
		most := rapid.IntRange(0, 200).Draw(t, "most")
		got := clip.Text(s, most)
		if len(got) > most || !utf8.ValidString(got) {
			t.Fatalf("%q in %d bytes is %q", s, most, got)
		}
		if again := clip.Text(got, most); again != got {
			t.Fatalf("%q is cut once more, to %q", got, again)
		}
		valid := strings.ToValidUTF8(s, "\uFFFD")
		if len(valid) <= most {
			if got != valid {
				t.Fatalf("%q fits in %d bytes and is %q", s, most, got)
			}
			return
		}
		kept, marked := strings.CutSuffix(got, "…")
		if !strings.HasPrefix(valid, kept) || len(got) <= most-utf8.UTFMax || marked != (most >= len("…")) {
			t.Fatalf("%q in %d bytes is %q", s, most, got)
		}
	})
}

func TestTextIsCutBetweenCharactersAndMarked(t *testing.T) {
	for _, c := range []struct {
		s    string
		most int
		want string
	}{
		{"", 0, ""}, {"short", 5, "short"}, {"shorter", 6, "sho…"}, {"ääää", 8, "ääää"}, {"ääää", 7, "ää…"}, {"ääää", 6, "ä…"}, {"𝄞𝄞", 7, "𝄞…"},
		{"𝄞𝄞", 6, "…"}, {"ää", 2, "ä"}, {"äa", 1, ""}, {"text", -1, ""}, {"a\xffb", 9, "a\uFFFDb"}, {"\xff\xfe\xff", 9, "\uFFFD"}, {"abc\xc3", 5, "ab…"},
	} {
		if got := clip.Text(c.s, c.most); got != c.want {
			t.Errorf("%q in %d bytes is %q, want %q", c.s, c.most, got, c.want)
		}
	}
}
