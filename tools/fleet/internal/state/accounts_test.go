package state_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/state"
)

// ring is a picker of the ids from 10 to 19, and tells where it was asked to look.
func ring(asked *[2]uint32) state.Picker {
	return func(near, before uint32, n int) (ids []uint32, err error) {
		*asked = [2]uint32{near, before}
		if near == 0 {
			near = 16
		}
		for i := range n {
			ids = append(ids, 10+(near-10+uint32(i))%10) //nolint:gosec // a few
		}
		return ids, nil
	}
}

func TestUserIDsGoRoundAndNoneIsGivenTwice(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	var asked [2]uint32
	for _, tc := range []struct {
		set   string
		asked [2]uint32
		ids   []uint32
	}{
		{"plane", [2]uint32{0, 0}, []uint32{16, 17}},
		{"tnt_a", [2]uint32{18, 16}, []uint32{18, 19}},
		{"tnt_b", [2]uint32{20, 16}, []uint32{10, 11}},
		{"tnt_c", [2]uint32{12, 16}, []uint32{12, 13}},
	} {
		if err := s.ChooseAccounts([]string{tc.set + "/iam", tc.set + "/audit"}, ring(&asked)); err != nil {
			t.Fatal(err)
		}
		if got := s.AccountsOf(tc.set); asked != tc.asked || !slices.Equal(got, tc.ids) {
			t.Errorf("for %s it is asked from and before %v, and not %v, and has %v, and not %v", tc.set, asked, tc.asked, got, tc.ids)
		}
		// What is forgotten stays given.
		if tc.set != "plane" {
			if _, err := s.Forget(tc.set); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, home)
	}
}

func TestUserIDThatIsSomebodysIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	picks := func(ids ...uint32) state.Picker {
		return func(uint32, uint32, int) ([]uint32, error) { return ids, nil }
	}
	if err := s.ChooseAccounts([]string{"tnt_a/iam", "tnt_a/migrate"}, picks(10, 11)); err != nil {
		t.Fatal(err)
	}
	for _, ids := range [][]uint32{{12, 11}, {12, 12}} {
		if err := s.ChooseAccounts([]string{"tnt_b/iam", "tnt_b/migrate"}, picks(ids...)); err == nil || !strings.Contains(err.Error(), "was picked") {
			t.Errorf("%v are given while 11 is tnt_a's: %v", ids, err)
		}
	}
	if got := s.AccountsOf("tnt_b"); len(got) != 0 {
		t.Errorf("what was refused is kept: %v", got)
	}
}

// A release before this one noted the highest alone.
func TestUserIDsOfAPlaneOfBeforeGoOnAfterItsHighest(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	var asked [2]uint32
	if err := s.ChooseAccounts([]string{"plane/iam", "plane/audit"}, ring(&asked)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home, "plane.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var old []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, `"first_account"`) {
			old = append(old, strings.Replace(line, `"last_account": 17`, `"last_account": 18`, 1))
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(old, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, home).Account("tnt_a/iam", ring(&asked)); err != nil || asked != [2]uint32{19, 16} {
		t.Errorf("it is asked from and before %v, and not 19 and 16 (%v)", asked, err)
	}
}
