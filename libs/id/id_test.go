package id_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"a3os.app/libs/id"
	"a3os.app/libs/pgtest"
)

// bytes draws the 16 bytes of an id that isn't zero.
func bytes(t *rapid.T) [16]byte {
	var b [16]byte
	copy(b[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
	if b == [16]byte{} {
		b[15] = 1
	}
	return b
}

func TestIDIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tenant(bytes(t))
		got, err := id.ParseTenant(want.String())
		if err != nil || got != want || got.Bytes() != want.Bytes() || got.String() != want.String() {
			t.Fatalf("%s is read as %s, %v", want, got, err)
		}
		if _, err := id.ParseWorkspace(want.String()); err == nil {
			t.Fatalf("%s is read as a workspace", want)
		}
	})
}

// One id has one text: another text for it would pass a check by text, or a cache, as something else.
func TestTextThatIsReadIsTheTextThatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`(usr|wsp|USR|)_?[0-9a-zA-Z]{25,27}`),
			rapid.StringMatching(`usr_[0-9a-hjkmnp-tv-z]{26}`),
			rapid.String(),
		).Draw(t, "text")
		if u, err := id.ParseUser(text); err == nil && u.String() != text {
			t.Fatalf("%q is read, and written as %q", text, u)
		}
	})
}

func TestTextThatIsNoIDIsRefused(t *testing.T) {
	const good = "usr_01h455vb4pex5vsknk084sn02q"
	if _, err := id.ParseUser(good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":                  "",
		"prefix alone":           "usr_",
		"no prefix":              good[4:],
		"empty prefix":           good[3:],
		"another kind":           "wsp" + good[3:],
		"prefix of a prefix":     "us" + good[3:],
		"longer prefix":          "user" + good[3:],
		"two prefixes":           "usr_usr" + good[3:],
		"upper case":             strings.ToUpper(good),
		"upper-case prefix":      "USR" + good[3:],
		"upper-case suffix":      "usr" + strings.ToUpper(good[3:]),
		"a digit too few":        good[:29],
		"a digit too many":       good + "0",
		"overlong":               good + strings.Repeat("0", 1<<16),
		"past 128 bits":          "usr_8" + good[5:],
		"far past 128 bits":      "usr_zzzzzzzzzzzzzzzzzzzzzzzzzz",
		"letter out of alphabet": "usr_01h455vb4pex5vsknk084sn0uu",
		"zero":                   "usr_00000000000000000000000000",
		"space before":           " " + good,
		"newline after":          good + "\n",
		"NUL after":              good + "\x00",
		"uuid":                   "01890a5d-ac96-774b-bcce-b302099a8057",
		"not UTF-8":              "usr_\xff\xfe",
	} {
		u, err := id.ParseUser(text)
		if err == nil || !u.IsZero() {
			t.Errorf("%s is read as %q", name, u)
			continue
		}
		if len(err.Error()) > 400 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

func TestNewIDsSortByTime(t *testing.T) {
	var made []string
	for range 1000 {
		made = append(made, id.NewEvent().String())
	}
	if len(slices.Compact(slices.Clone(made))) != len(made) {
		t.Error("an id was made twice")
	}
	// Within a millisecond their order is random, between the first and a later one it isn't.
	if made[0][:14] > made[999][:14] {
		t.Errorf("%s was made before %s", made[0], made[999])
	}
}

func TestIDTravelsInJSON(t *testing.T) {
	type message struct {
		User  id.User             `json:"user"`
		Users []id.User           `json:"users"`
		Of    map[id.Tenant]int   `json:"of"`
		Maybe *id.Workspace       `json:"maybe"`
		Empty id.Workspace        `json:"empty"`
		Omit  id.Workspace        `json:"omit,omitzero"`
		Kinds map[string]id.Grant `json:"kinds"`
	}
	want := message{User: id.NewUser(), Users: []id.User{id.NewUser()}, Of: map[id.Tenant]int{id.NewTenant(): 1}}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `"user":"`+want.User.String()+`"`) || strings.Contains(string(raw), "omit") {
		t.Errorf("written as %s", raw)
	}
	var got message
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.User != want.User || got.Users[0] != want.Users[0] || len(got.Of) != 1 || got.Maybe != nil || !got.Empty.IsZero() {
		t.Errorf("read as %+v", got)
	}
	for _, bad := range []string{`{"user":"` + id.NewTenant().String() + `"}`, `{"user":7}`, `{"user":"usr_"}`, `{"users":[{}]}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("read %s", bad)
		}
	}
}

func TestIDTravelsThroughPostgreSQL(t *testing.T) {
	pool := pgtest.New(t).Pool(t)
	user, other := id.NewUser(), id.NewUser()
	if user.String() > other.String() { // made in one millisecond, they come in any order
		user, other = other, user
	}
	if _, err := pool.Exec(t.Context(), "CREATE TABLE ids (n int, one uuid, many uuid[])"); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO ids VALUES (1, $1, $2), (2, $3, $4)", user, []id.User{user, other}, id.User{}, []id.User(nil)); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		var one, none id.User
		var many, nobody []id.User
		err := errors.Join(
			pool.QueryRow(t.Context(), "SELECT one, many FROM ids WHERE one = $1::uuid", mode, user).Scan(&one, &many),
			pool.QueryRow(t.Context(), "SELECT one, many FROM ids WHERE one IS NULL", mode).Scan(&none, &nobody))
		if err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if one != user || !slices.Equal(many, []id.User{user, other}) || !none.IsZero() || nobody != nil {
			t.Errorf("%s: read %s %v, %s %v", mode, one, many, none, nobody)
		}
	}
	var n int
	var pointer *id.User
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM ids WHERE one = ANY($1)", []id.User{user, other}).Scan(&n); err != nil || n != 1 {
		t.Errorf("ANY finds %d, %v", n, err)
	}
	if err := pool.QueryRow(t.Context(), "SELECT one FROM ids WHERE n = 2").Scan(&pointer); err != nil || pointer != nil {
		t.Errorf("NULL is read as %v, %v", pointer, err)
	}
	// The zero id matches no row, not even one without an id.
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM ids WHERE one = $1", id.User{}).Scan(&n); err != nil || n != 0 {
		t.Errorf("the zero id finds %d, %v", n, err)
	}
	var text string
	if err := pool.QueryRow(t.Context(), "SELECT one::text FROM ids WHERE n = 1").Scan(&text); err != nil || strings.Contains(text, "usr") {
		t.Errorf("kept as %s, %v", text, err)
	}
	rows, err := pool.Query(t.Context(), "SELECT unnest(many) FROM ids ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[id.User])
	if err != nil || !slices.Equal(got, []id.User{user, other}) {
		t.Errorf("in order of the database: %v, %v; want the order of their texts", got, err)
	}
}

// tenant makes a tenant's id of 16 bytes, as a driver does.
func tenant(b [16]byte) id.Tenant {
	var i id.Tenant
	_ = i.ScanUUID(pgtype.UUID{Bytes: b, Valid: true})
	return i
}
