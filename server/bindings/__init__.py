"""The only folder that imports llama_cpp, through its low-level functions; owns every pointer.

llama.cpp aborts the process on many bad inputs, so each function here checks its arguments before the native call.
"""
