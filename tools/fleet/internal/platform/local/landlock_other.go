//go:build !linux

package local

func noLandlock() string { return "this system has no Landlock" }
