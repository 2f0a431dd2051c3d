// Package blobtest is what every driver of package blob must pass.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"a3os.app/libs/blob"
)

// MostBytes is the bound that a store under test is opened with.
const MostBytes = 1 << 20

// Store is one tenant's store, opened by both sides.
type Store struct {
	Writer blob.Writer
	Reader blob.Reader
}

// Run runs the suite; open makes an empty store of a tenant that is new, with the bound [MostBytes].
func Run(t *testing.T, open func(*testing.T) Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"WhatIsPutIsRead":                putIsRead,
		"AbsentIsNotFound":               absent,
		"DeletedIsGoneAndDeletingIsSafe": deleted,
		"InvalidKeysAreRefused":          invalidKeys,
		"ListIsInOrderAndStaysInside":    list,
		"LargerThanTheBoundIsRefused":    tooLarge,
		"FailedPutChangesNothing":        failedPut,
		"OpenObjectStaysAsItWas":         openObject,
		"ParallelPutsLeaveOneWhole":      parallelPuts,
		"CancelledCallDoesNothing":       cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// InvalidKeys are no keys, whatever the driver.
func InvalidKeys() []string {
	return []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a/.", "a/./b", "%2e%2e/a", "a/%2e%2e", "a%2fb", `a\b`, `..\a`, `C:\a`,
		"a\x00b", "a\nb", "a\x7f", "a b", "é", "a\u202eb", "a\xff", "a@", "a:b", "a*", "a?b", "~", "a#b", "https://x/y",
		strings.Repeat("a", blob.MostSegment+1), strings.Repeat("abcdefg/", blob.MostKey/8) + "x",
	}
}

func putIsRead(t *testing.T, s Store) {
	for key, content := range map[string]string{
		"a": "x", "a/b": "", "a/b/c-d_e.csv": "\x00\xff", "...": "dots", "a.": "dot", strings.Repeat("k", blob.MostSegment): "long",
		strings.Repeat("abcdefg/", blob.MostKey/8-1) + "abcdefgh": "longest", "large": strings.Repeat("l", MostBytes),
	} {
		put, err := s.Writer.Put(t.Context(), key, iotest.OneByteReader(strings.NewReader(content)))
		must(t, err)
		got, info := read(t, s, key)
		if got != content || info != put || info.Key != key || info.Size != int64(len(content)) || info.Modified.IsZero() {
			t.Errorf("%.20s: read %d bytes of %d, %+v, %+v", key, len(got), len(content), info, put)
		}
	}
}

func absent(t *testing.T, s Store) {
	_, err := s.Writer.Put(t.Context(), "a/b", strings.NewReader("x"))
	must(t, err)
	for _, key := range []string{"a", "a/b/c", "b", "A/b"} {
		if _, _, err := s.Reader.Get(t.Context(), key); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("get %s: %v", key, err)
		}
	}
}

func deleted(t *testing.T, s Store) {
	must(t, s.Writer.Delete(t.Context(), "a/b"))
	_, err := s.Writer.Put(t.Context(), "a/b", strings.NewReader("x"))
	must(t, err)
	must(t, s.Writer.Delete(t.Context(), "a"))
	read(t, s, "a/b")
	must(t, s.Writer.Delete(t.Context(), "a/b"))
	must(t, s.Writer.Delete(t.Context(), "a/b"))
	if _, _, err := s.Reader.Get(t.Context(), "a/b"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("get of what was deleted: %v", err)
	}
}

func invalidKeys(t *testing.T, s Store) {
	for _, key := range InvalidKeys() {
		_, _, getErr := s.Reader.Get(t.Context(), key)
		_, putErr := s.Writer.Put(t.Context(), key, strings.NewReader("x"))
		for what, err := range map[string]error{"get": getErr, "put": putErr, "delete": s.Writer.Delete(t.Context(), key)} {
			if !errors.Is(err, blob.ErrInvalidKey) {
				t.Errorf("%s %q: %v", what, key, err)
			}
		}
	}
	if left, err := keys(t, s); err != nil || len(left) != 0 {
		t.Errorf("refused keys left %v, %v", left, err)
	}
	const ways = 3
	t.Attr("row", fmt.Sprintf("O39 %d", ways*len(InvalidKeys())))
}

func list(t *testing.T, s Store) {
	if got, err := keys(t, s); err != nil || len(got) != 0 {
		t.Errorf("an empty store lists %v, %v", got, err)
	}
	all := []string{"a", "a-b", "a.b", "a/b", "a/b/c", "a0", "w1/x", "w10/x", "w1/y/z"}
	for _, key := range all {
		_, err := s.Writer.Put(t.Context(), key, strings.NewReader(key))
		must(t, err)
	}
	slices.Sort(all)
	if got, err := keys(t, s); err != nil || !slices.Equal(got, all) {
		t.Errorf("it lists %v, %v; want %v", got, err, all)
	}
	for info, err := range s.Reader.List(t.Context()) {
		if err != nil || info.Key != "a" || info.Size != 1 {
			t.Errorf("first is %+v, %v", info, err)
		}
		break
	}
}

func tooLarge(t *testing.T, s Store) {
	_, err := s.Writer.Put(t.Context(), "a", strings.NewReader("old"))
	must(t, err)
	endless := iotest.TimeoutReader(zeros{}) // were the bound not held, the second read would fail and not the test hang
	for _, content := range []io.Reader{bytes.NewReader(make([]byte, MostBytes+1)), io.MultiReader(bytes.NewReader(make([]byte, MostBytes+1)), endless)} {
		if _, err := s.Writer.Put(t.Context(), "a", content); !errors.Is(err, blob.ErrTooLarge) {
			t.Errorf("err is %v", err)
		}
	}
	if got, _ := read(t, s, "a"); got != "old" {
		t.Errorf("after a refused put: %d bytes", len(got))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func failedPut(t *testing.T, s Store) {
	_, err := s.Writer.Put(t.Context(), "a", strings.NewReader("old"))
	must(t, err)
	broken := errors.New("the source broke")
	if _, err := s.Writer.Put(t.Context(), "a", io.MultiReader(strings.NewReader("new"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("err is %v", err)
	}
	if got, _ := read(t, s, "a"); got != "old" {
		t.Errorf("after a failed put: %q", got)
	}
	if got, err := keys(t, s); err != nil || len(got) != 1 {
		t.Errorf("a failed put left %v, %v", got, err)
	}
}

func openObject(t *testing.T, s Store) {
	_, err := s.Writer.Put(t.Context(), "a", strings.NewReader("old"))
	must(t, err)
	object, _, err := s.Reader.Get(t.Context(), "a")
	must(t, err)
	defer object.Close()
	_, err = s.Writer.Put(t.Context(), "a", strings.NewReader("newer"))
	must(t, err)
	must(t, s.Writer.Delete(t.Context(), "a"))
	if b, err := io.ReadAll(object); err != nil || string(b) != "old" {
		t.Errorf("read %q, %v", b, err)
	}
}

func parallelPuts(t *testing.T, s Store) {
	_, err := s.Writer.Put(t.Context(), "d/a", strings.NewReader("start"))
	must(t, err)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := s.Writer.Put(t.Context(), "d/a", strings.NewReader(strings.Repeat(string(rune('a'+i)), 100_000))); err != nil {
				t.Error(err)
			}
			object, _, err := s.Reader.Get(t.Context(), "d/a")
			if err != nil {
				t.Error(err)
				return
			}
			defer object.Close()
			if b, err := io.ReadAll(object); err != nil || len(b) != 100_000 || bytes.Count(b, b[:1]) != len(b) {
				t.Errorf("read a mixture of %d bytes, %v", len(b), err)
			}
		})
	}
	wg.Wait()
}

func cancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	content := io.MultiReader(strings.NewReader("x"), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), zeros{})
	if _, err := s.Writer.Put(ctx, "a", content); !errors.Is(err, context.Canceled) {
		t.Errorf("put that is cancelled while it reads: %v", err)
	}
	_, _, getErr := s.Reader.Get(ctx, "a")
	if !errors.Is(getErr, context.Canceled) || !errors.Is(s.Writer.Delete(ctx, "a"), context.Canceled) {
		t.Errorf("get: %v", getErr)
	}
	if got, err := keys(t, s); err != nil || len(got) != 0 {
		t.Errorf("a cancelled put left %v, %v", got, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func keys(t *testing.T, s Store) ([]string, error) {
	t.Helper()
	var all []string
	for info, err := range s.Reader.List(t.Context()) {
		if err != nil {
			return all, err
		}
		all = append(all, info.Key)
	}
	return all, nil
}

func read(t *testing.T, s Store, key string) (string, blob.Info) {
	t.Helper()
	object, info, err := s.Reader.Get(t.Context(), key)
	must(t, err)
	defer object.Close()
	b, err := io.ReadAll(object)
	must(t, err)
	return string(b), info
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
