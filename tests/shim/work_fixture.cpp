namespace cmp {

// Of lookup.cpp, which is left out here: there is no other preload.
bool FreesAreUnseen() { return true; }

}  // namespace cmp
