"""Windows guests: trees and registry hives made for the tests."""
